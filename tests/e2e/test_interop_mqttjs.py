"""MQTT.js from npm, both protocol versions, QoS 1 and 2."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from harness import ROOT, Skip, cases, eq, limit, some_bytes

SCRIPT = Path(__file__).parent / "mqttjs_upload.js"
VERSION = "5.16.0"


def install(t, place):
    """Without the registry this fails once and quickly; the other tests of the run are told so by the file it leaves."""
    refused = place / "refused"
    if refused.exists() and time.time() - refused.stat().st_mtime < 600:
        raise Skip(refused.read_text())
    try:
        result = t.run("npm", "install", "--prefix", place, "--no-audit", "--no-fund", "--ignore-scripts",
                       "--fetch-retries=1", "--fetch-timeout=20000", "--fetch-retry-maxtimeout=1000",
                       "--fetch-retry-mintimeout=100", f"mqtt@{VERSION}", timeout=100)
        why = result.stderr.strip()[-200:] if result.returncode else None
    except subprocess.TimeoutExpired:
        why = "not within 100 s"
    if why:
        refused.write_text(f"npm can't install mqtt: {why}")
        raise Skip(refused.read_text())


def modules(t):
    """The directory with MQTT.js, installed once into build/node; a skip where that can't be."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise Skip(f"{program} is not installed")
    place = ROOT / "build" / "node"
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "node_modules" / "mqtt" / "package.json").exists():
            install(t, place)
    return place / "node_modules"


@limit(150)
@cases(protocol=[4, 5], qos=[1, 2])
def test_mqttjs(t, protocol, qos):
    env = {**os.environ, "NODE_PATH": str(modules(t))}
    d = t.daemon()
    for size in (0, 1, 1_500_000):
        data = some_bytes(size)
        (t.dir / "input").write_bytes(data)
        result = t.run("node", SCRIPT, d.port, "mqtt-js", f"f{size}", t.dir / "input", "made by node.bin",
                       protocol, qos, env=env)
        eq((result.returncode, result.stderr), (0, ""), "exit status, stderr")
        eq(json.loads(result.stdout)["reason_description"], "success", "response of fin")
        eq(d.export("mqtt-js", f"f{size}", "made by node.bin"), data, "export")
