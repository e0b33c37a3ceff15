"""A disk with a cache that a power cut empties, for a virtual machine: a server of the NBD protocol.

Writes go to a file, and are remembered until the next flush: with what was there before. A cut takes back
what was written since the last flush, then keeps of it what chance wants: nothing, all, a beginning,
or any part of it, out of order and torn at a physical sector. That is what a drive may do whose cache is lost
(and what dm-log-writes replays), and nothing that was flushed before is touched.

`fault`, when set, is asked about every write and flush: an errno makes it fail.
"""

import os
import socket
import struct
import threading

MAGIC, OPTION_MAGIC, REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x0003E889045565A9
REQUEST, ANSWER = 0x25609513, 0x67446698
EXPORT_NAME, ABORT, INFO, GO = 1, 2, 6, 7
ACK, INFORM, UNSUPPORTED = 1, 3, 0x80000001
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
HAS_FLAGS, SEND_FLUSH = 1, 4
SECTOR = 4096  # ext4's superblock is two sectors of 512: no disk may tear it, and no file system survives that


class Gone(Exception):
    """The machine let go of its disk."""


class VolatileDisk:
    """Serves `image` on a Unix socket, one connection at a time, in a thread of its own."""

    def __init__(self, image, path):
        self.path, self.fault = str(path), None
        self.fd = os.open(image, os.O_RDWR)
        self.bytes = os.fstat(self.fd).st_size
        self.unflushed = []  # (offset, before, after), in order
        self.writes = self.flushes = self.faults = self.dropped = 0
        self.lock = threading.Lock()
        self.is_off = False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        threading.Thread(target=self.serve, daemon=True).start()

    def close(self):
        self.listener.close()
        os.close(self.fd)

    # --- what a power cut does ---

    def cut(self, rng):
        """The machine must have gone. Returns how many writes were lost, wholly or in part."""
        with self.lock:
            recent, self.unflushed = self.unflushed, []
            for offset, before, _ in reversed(recent):
                os.pwrite(self.fd, before, offset)
            kept = 0
            mode = rng.choice(["none", "all", "beginning", "any", "any"])
            beginning = rng.randrange(len(recent) + 1)
            for at, (offset, _, after) in enumerate(recent):
                if (mode == "all" or mode == "beginning" and at < beginning
                        or mode == "any" and rng.random() < 0.5):
                    os.pwrite(self.fd, after, offset)
                    kept += 1
                elif mode == "any" and rng.random() < 0.3:
                    sectors = rng.randrange(len(after) // SECTOR + 1)
                    os.pwrite(self.fd, after[:sectors * SECTOR], offset)
            self.dropped += len(recent) - kept
            return len(recent) - kept

    # --- the protocol ---

    def serve(self):
        while True:
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            with peer:
                try:
                    self.negotiate(peer)
                    while True:
                        self.handle(peer)
                except (Gone, OSError):
                    pass

    def take(self, peer, count):
        parts = bytearray()
        while len(parts) < count:
            part = peer.recv(count - len(parts))
            if not part:
                raise Gone
            parts += part
        return bytes(parts)

    def negotiate(self, peer):
        peer.sendall(struct.pack(">QQH", MAGIC, OPTION_MAGIC, 3))  # fixed newstyle, no zeroes
        self.take(peer, 4)
        while True:
            _, option, length = struct.unpack(">QII", self.take(peer, 16))
            self.take(peer, length)
            export = struct.pack(">QH", self.bytes, HAS_FLAGS | SEND_FLUSH)

            def reply(kind, data=b"", to=option):
                peer.sendall(struct.pack(">QIII", REPLY_MAGIC, to, kind, len(data)) + data)

            if option == EXPORT_NAME:
                peer.sendall(export)
                return
            if option in (INFO, GO):
                reply(INFORM, struct.pack(">H", 0) + export)
                reply(ACK)
                if option == GO:
                    return
            elif option == ABORT:
                raise Gone
            else:
                reply(UNSUPPORTED)

    def handle(self, peer):
        magic, _, kind, handle, offset, length = struct.unpack(">IHHQQI", self.take(peer, 28))
        if magic != REQUEST or kind == DISCONNECT:
            raise Gone
        error, data = 0, b""
        payload = self.take(peer, length) if kind == WRITE else b""
        with self.lock:
            if kind in (WRITE, FLUSH) and self.fault:
                error = self.fault(kind, offset, payload)
                self.faults += error != 0
            if error:
                pass
            elif kind == READ:
                data = os.pread(self.fd, length, offset)
            elif kind == WRITE:
                self.unflushed.append((offset, os.pread(self.fd, length, offset), payload))
                os.pwrite(self.fd, payload, offset)
                self.writes += 1
            elif kind == FLUSH:
                self.unflushed = []
                self.flushes += 1
        peer.sendall(struct.pack(">IIQ", ANSWER, error, handle) + data)
