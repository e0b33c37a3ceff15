"""mosquitto_pub and mosquitto_sub (mosquitto-clients): uploads by hand, as README shows it."""

import json
import os
import shutil
import subprocess

from harness import Skip, cases, eq, sha256, some_bytes, until

MQTT = ["31", "311", "5"]


def pub(t, d, topic, *arguments, protocol="5", qos=1):
    if not shutil.which("mosquitto_pub"):
        raise Skip("mosquitto-clients is not installed")
    result = t.run("mosquitto_pub", "-h", "127.0.0.1", "-p", d.port, "-i", "mosq", "-V",
                   f"mqttv{protocol}", "-q", qos, "-t", topic, *arguments)
    eq((result.returncode, result.stderr), (0, ""), f"mosquitto_pub to {topic}")


@cases(protocol=MQTT, qos=[0, 1, 2])
def test_upload(t, protocol, qos):
    d = t.daemon()
    data = some_bytes(250_000)
    (t.dir / "file").write_bytes(data)
    pub(t, d, "$file/f1/init", "-m", '{"name":"hello.bin"}', protocol=protocol, qos=qos)
    pub(t, d, "$file/f1/0", "-f", t.dir / "file", protocol=protocol, qos=qos)
    pub(t, d, f"$file/f1/fin/{len(data)}/{sha256(data)}", "-n", protocol=protocol, qos=qos)
    path = d.export_dir("mosq", "f1") / "hello.bin"
    if qos == 0:
        # mosquitto_pub leaves as soon as it has sent.
        until(path.exists, "the export")
    eq(path.read_bytes(), data, "export")


@cases(protocol=MQTT)
def test_listen_to_responses(t, protocol):
    """mosquitto_sub can't be the same client as mosquitto_pub: it reads a Response Topic, or events."""
    d = t.daemon("events.subscribers=watcher")
    if not shutil.which("mosquitto_sub"):
        raise Skip("mosquitto-clients is not installed")
    command = ["stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", str(d.port), "-i", "watcher",
               "-V", f"mqttv{protocol}", "-q", "1", "-t", "$file-event/#", "-t", "answers", "-C", "2",
               "-d"]
    with open(t.dir / "sub.out", "wb") as out:
        sub = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    t.at_end(sub.kill)
    until(lambda: b"SUBACK" in (t.dir / "sub.out").read_bytes(), "SUBACK")
    pub(t, d, "$file/f1/init", "-m", '{"name":"a"}')
    pub(t, d, "$file/f1/fin/0", "-n", "-D", "publish", "response-topic", "answers")
    eq(sub.wait(10), 0, "exit status of mosquitto_sub")
    lines = [json.loads(line) for line in (t.dir / "sub.out").read_text().splitlines()
             if line.startswith("{")]
    by_kind = {"fileid" if "fileid" in line else "response": line for line in lines}
    eq(by_kind["fileid"]["name"], "a", "event")
    eq(by_kind["response"]["reason_code"], 0, "response")


def test_refusal_is_shown(t):
    """mosquitto_pub prints a v5 reason code ≥ 0x80 of its PUBACK as a warning."""
    d = t.daemon()
    result = t.run("mosquitto_pub", "-h", "127.0.0.1", "-p", d.port, "-i", "mosq", "-V", "mqttv5", "-q",
                   "1", "-t", "$file/f/init", "-m", "no json", "-d")
    eq("RC:128" in result.stdout or "128" in result.stdout + result.stderr, True,
       f"its output names 128: {result.stdout}{result.stderr}")


@cases(protocol=MQTT)
def test_lines_as_messages(t, protocol):
    """mosquitto_pub -l: one connection, one PUBLISH for each line, to any topic."""
    d = t.daemon()
    listener = t.client("listener")
    listener.subscribe("lines")
    text = "".join(f"line {i}\n" for i in range(100))
    result = subprocess.run(["mosquitto_pub", "-p", str(d.port), "-V", f"mqttv{protocol}", "-t", "lines",
                             "-q", "1", "-l"], input=text.encode(), capture_output=True, check=False,
                            timeout=30, env=dict(os.environ))
    eq(result.returncode, 0, "exit status")
    eq([listener.message().payload.decode() for _ in range(100)], text.split("\n")[:100], "messages")
