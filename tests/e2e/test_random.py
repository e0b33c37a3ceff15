"""Random commands against a model: the last write wins, byte by byte, through cuts, kills and takeovers.

The model of a file is its bytes and which of them are covered. After every step that can be seen the daemon's
status must be the model's, and a fin must find the model's digest.
"""

import os
import random

from harness import V5, V311, cases, check_ack, eq, limit, sha256, until, yes
from rawmqtt import publish_packet

SEEDS = int(os.environ.get("SLUICE_SEEDS", "6"))
SIZES = [1, 50, 1000, 5000, 30_000, 33_000, 70_000, 300_000]


class Model:
    def __init__(self, size):
        self.size, self.data, self.mask = size, bytearray(size), bytearray(size)

    def write(self, at, piece):
        self.data[at:at + len(piece)] = piece
        self.mask[at:at + len(piece)] = b"\1" * len(piece)

    def missing(self):
        found, at = [], 0
        while (a := self.mask.find(b"\0", at)) >= 0:
            at = self.mask.find(b"\1", a)
            at = self.size if at < 0 else at
            found.append([a, at])
        return found

    def digest(self):
        return sha256(bytes(self.data))


class Run:
    def __init__(self, t, daemon, seed, version):
        self.t, self.daemon, self.rng, self.version = t, daemon, random.Random(seed), version
        self.file_no, self.trace = 0, []
        self.begin_file()
        self.connect()

    def connect(self):
        self.up = self.t.uploader("model", self.version)

    def begin_file(self):
        self.file_no += 1
        self.id = f"f{self.file_no}"
        self.model, self.inited = Model(self.rng.choice([1000, 60_000, 400_000, 1_000_000])), False

    def piece(self):
        at = self.rng.randrange(self.model.size)
        size = min(self.rng.choice(SIZES), self.model.size - at)
        # Half of them repeat what is there, so that comparing and rewriting both happen.
        if self.rng.random() < 0.5:
            return at, bytes(self.model.data[at:at + size])
        return at, self.rng.randbytes(size)

    def topic(self, at, piece):
        checksum = f"/{sha256(piece)}" if self.rng.random() < 0.4 else ""
        return f"$file/{self.id}/{at}{checksum}"

    # --- the steps ---

    def init(self):
        self.up.init(self.id, size=self.model.size)
        self.inited = True

    def segment(self):
        at, piece = self.piece()
        self.up.check(self.topic(at, piece), piece, self.rng.randrange(3))
        self.model.write(at, piece)

    def wrong_checksum(self):
        at, piece = self.piece()
        self.up.segment(self.id, at, piece, checksum="0" * 64, code=0x80,
                        description="checksum_mismatch")

    def burst(self):
        """Overlapping segments without waiting: carried out in the order of their arrival."""
        messages = []
        for _ in range(self.rng.randrange(2, 25)):
            at, piece = self.piece()
            messages.append((self.topic(at, piece), piece))
            self.model.write(at, piece)
        for ack in self.up.client.publish_all(messages, 30):
            check_ack(ack, self.version, 0, None)
        for _ in messages:
            eq(self.up.response()["reason_code"], 0, "response")

    def cut(self):
        """The connection ends inside a segment."""
        at, piece = self.piece()
        whole = publish_packet(self.topic(at, piece), piece, 1, 9, self.version)
        self.up.client.send(whole[:self.rng.randrange(1, len(whole))])
        if self.rng.random() < 0.5:
            self.up.client.abandon()
        self.connect()

    def fill(self):
        for a, b in self.model.missing():
            while a < b:
                piece = self.rng.randbytes(min(self.rng.choice(SIZES[3:]), b - a))
                self.up.check(self.topic(a, piece), piece)
                self.model.write(a, piece)
                a += len(piece)

    def restart(self):
        self.daemon.restart(kill=self.rng.random() < 0.7)
        self.connect()

    def abort(self):
        self.up.abort(self.id)
        self.model, self.inited = Model(self.model.size), False

    def fin(self):
        size, missing = self.model.size, self.model.missing()
        if missing or not self.inited:
            body = self.up.response_of_fin(self.id, size)
            eq((body["reason_description"], body["missing"]), ("incomplete", missing[:32]), "fin")
            return
        body = self.up.fin(self.id, size, "0" * 64, code=0x80, description="checksum_mismatch")
        eq(body["actual"], self.model.digest(), "digest of what is there")
        if self.rng.random() < 0.5:
            return
        self.up.fin(self.id, size, self.model.digest())
        yes(self.daemon.export("model", self.id, "a.bin") == bytes(self.model.data), "the export differs")
        self.begin_file()

    def check(self):
        status, missing = self.up.status(self.id), self.model.missing()
        if status["state"] == "none":
            eq((self.inited, any(self.model.mask)), (False, False), "unknown to the daemon")
            return
        if not self.inited:
            # Without a size nothing is known to be missing behind the last byte.
            if missing and missing[-1][1] == self.model.size:
                missing.pop()
        eq((status["missing"], status["received"]), (missing[:32], sum(self.model.mask)), "status")

    def step(self):
        steps = [(self.segment, 30), (self.burst, 15), (self.wrong_checksum, 8), (self.cut, 5),
                 (self.fill, 6), (self.fin, 8), (self.restart, 3), (self.abort, 1)]
        if not self.inited:
            steps.append((self.init, 20))
        step = self.rng.choices([s for s, _ in steps], [w for _, w in steps])[0]
        self.trace.append(f"{self.id} {step.__name__}")
        try:
            step()
            self.check()
        except Exception:
            print("steps:", "; ".join(self.trace[-30:]))
            raise


@limit(120)
@cases(seed=list(range(SEEDS)), version=[V311, V5])
def test_random_commands(t, seed, version):
    run = Run(t, t.daemon("io.journal_size=1MiB"), seed, version)
    for _ in range(150):
        run.step()


def changed(rng, old):
    """The next version of a file: the same, a few bytes changed, longer, shorter, or all new."""
    data = bytearray(old)
    how = rng.choice(["same", "bytes", "bytes", "longer", "shorter", "new"])
    if how == "bytes":
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] ^= 0x55
    elif how == "longer":
        data += rng.randbytes(rng.choice([1, 1000, 50_000]))
    elif how == "shorter":
        # Not at the end: what only repeats the beginning of an export is a replay (PROTOCOL 2.1).
        del data[:rng.randrange(1, len(data) // 2)]
    elif how == "new":
        data = bytearray(rng.randbytes(len(data)))
    return bytes(data)


@limit(120)
@cases(seed=list(range(SEEDS)))
def test_random_versions(t, seed):
    """One file id, version after version, through restarts: each new content becomes an export of its
    own, nothing is lost, nothing is overwritten, and what is the same is not stored again."""
    rng = random.Random(seed)
    d = t.daemon("io.journal_size=1MiB")
    up = t.uploader("ver")
    data = rng.randbytes(rng.choice([5000, 200_000, 600_000]))
    exports = []
    for _ in range(10):
        up.init("f", checksum=sha256(data) if rng.random() < 0.3 else None)
        step = rng.choice([3000, 20_000, 100_000])
        pieces = [(at, data[at:at + step]) for at in range(0, len(data), step)]
        if rng.random() < 0.5:
            rng.shuffle(pieces)
        for at, piece in pieces:
            up.segment("f", at, piece, checksum=rng.random() < 0.3, qos=rng.randrange(3))
            if rng.random() < 0.03:
                d.restart(kill=True)
                up = t.uploader("ver")
        up.fin("f", len(data), sha256(data))
        if not exports or exports[-1] != data:
            exports.append(data)
        found = [(p / "a.bin").read_bytes() for p in d.generations("ver", "f")]
        eq([sha256(x) for x in found], [sha256(x) for x in exports], "exports")
        if rng.random() < 0.2:
            d.restart(kill=rng.random() < 0.5)
            up = t.uploader("ver")
        data = changed(rng, data)
    until(lambda: not d.staged_files(), "staging is empty")
