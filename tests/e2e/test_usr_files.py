"""Real files from /usr, through our client and through the raw one: every export byte-identical.

SLUICE_USR_FILES=5000 SLUICE_USR_CONNECTIONS=64 tests/run.py -k usr_files runs it large.
"""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import Skip, cases, check_ack, eq, limit, until, yes
from rawmqtt import V5, V311

FILES = int(os.environ.get("SLUICE_USR_FILES", "300"))
CONNECTIONS = int(os.environ.get("SLUICE_USR_CONNECTIONS", "8"))
FILE_BYTES_MAX = 24 << 20
ODD_NAMES = ["empty", "ein Leerzeichen", "🦀", "100%", ".hidden", "-rf", "'quoted'", "a" * 240]


def usr_files(count, seed):
    """Files of all sizes: by size, so that both ends are there, then at random."""
    found = []
    for root, _, names in os.walk("/usr"):
        for name in names:
            path = os.path.join(root, name)
            try:
                if not os.path.islink(path) and os.path.isfile(path) and os.access(path, os.R_OK):
                    found.append((os.path.getsize(path), path))
            except OSError:
                continue
    found = sorted(f for f in found if f[0] <= FILE_BYTES_MAX)
    if len(found) < count:
        raise Skip(f"/usr has {len(found)} files only")
    edge = max(count // 50, 2)
    middle = random.Random(seed).sample(found[edge:-edge], count - 2 * edge)
    return [Path(path) for _, path in found[:edge] + middle + found[-edge:]]


def file_messages(file_id, name, data, rng):
    """init, segments in random order with a fifth sent twice and overlapping; not fin."""
    pieces, at = [], 0
    # At most a thousand segments for one file.
    smallest = max(1024, len(data) // 1000)
    while at < len(data):
        step = int(smallest * (4 << 20) ** (rng.random() ** 3) / smallest ** (rng.random() ** 3))
        step = min(max(step, smallest), 4 << 20)
        pieces.append((at, min(at + step, len(data))))
        at += step
    for a, b in rng.sample(pieces, len(pieces) // 5):
        pieces.append((max(0, a - rng.randrange(2000)), min(len(data), b + rng.randrange(2000))))
    rng.shuffle(pieces)
    messages = [(f"$file/{file_id}/{a}", data[a:b]) for a, b in pieces]
    init = (f"$file/{file_id}/init", json.dumps({"name": name, "size": len(data)}))
    messages.insert(rng.randrange(len(messages) + 1), init)
    return messages


def upload_some(client, files, round_no, seed):
    rng = random.Random(seed)
    for at, (path, name) in files:
        data = path.read_bytes()
        file_id = f"r{round_no}-{at}"
        for ack in client.publish_all(file_messages(file_id, name, data, rng), 32):
            check_ack(ack, client.version, 0, None)
        check_ack(client.publish(f"$file/{file_id}/fin/{len(data)}"), client.version, 0, None)


def names_of(paths):
    """Each under its own name where init may carry it; the first ones under odd names."""
    plain = [p.name if not set(p.name) & set("\\:") else f"renamed-{at}" for at, p in enumerate(paths)]
    return [*ODD_NAMES, *plain[len(ODD_NAMES):]]


def on_disk(name):
    name = name.replace("%", "%25")
    return "%2E" + name[1:] if name.startswith(".") else name


@limit(600 if FILES > 1000 else 180)
def test_raw_client(t):
    d = t.daemon()
    paths = usr_files(FILES, 1)
    files = list(enumerate(zip(paths, names_of(paths))))
    clients = [t.client(f"u{i}", (V311, V5)[i % 2], timeout=200) for i in range(CONNECTIONS)]
    sizes = []
    for round_no in range(2):
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            jobs = [pool.submit(upload_some, c, files[i::CONNECTIONS], round_no, round_no * 1000 + i)
                    for i, c in enumerate(clients)]
            for job in jobs:
                job.result()
        for at, (path, name) in files:
            place = d.export_dir(f"u{at % CONNECTIONS}", f"r{round_no}-{at}") / on_disk(name)
            yes(place.read_bytes() == path.read_bytes(), f"{place} differs from {path}")
        until(lambda: not d.staged_files(), "staging is empty")
        sizes.append((d.descriptors(), d.rss_bytes()))
    eq(len(d.exported_files()), 2 * FILES, "exports")
    # Pipes are made when they are first wanted, at most two for a connection, and kept.
    yes(sizes[1][0] <= sizes[0][0] + 4 * CONNECTIONS, f"descriptors grew: {sizes}")
    yes(t.slow > 1 or sizes[1][1] <= sizes[0][1] + (8 << 20), f"memory grew: {sizes}")


@limit(120)
@cases(mqtt=["5", "3.1.1"])
def test_sluice_send(t, mqtt):
    """Many files in one call of our own client."""
    sluice = t.tool("sluice")
    d = t.daemon()
    paths = list({p.name: p for p in usr_files(120, 2) if not set(p.name) & set("\\:")}.values())
    result = t.run(sluice, "send", "-h", "127.0.0.1", "-p", d.port, "-i", "cli", "--mqtt", mqtt, *paths,
                   timeout=100)
    eq((result.returncode, result.stderr), (0, ""), "exit status, stderr")
    exports = {p.name: p.read_bytes() for p in d.exported_files()}
    eq(len(exports), len(paths), "exports")
    for path in paths:
        yes(exports[on_disk(path.name)] == path.read_bytes(), f"the export of {path} differs")
    eq(d.staged_files(), [], "staging")
