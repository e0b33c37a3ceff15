"""A server that misbehaves on request, for testing the client.

It takes files over MQTT as the protocol says, in memory, and a test makes it do what a real daemon
does only by accident: refuse a command, lose a connection in the middle, forget, keep silent, or be
an older kind of server. Every command that arrives is kept in .commands, in order.
"""

import hashlib
import json
import select
import socket
import struct
import threading

from rawmqtt import (CONNACK, CONNECT, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBLISH, SUBACK,
                     SUBSCRIBE, V5, Cursor, ack_packet, packet, properties, publish_packet)


class Drop(Exception):
    """Raised by a hook: the connection is closed at once."""


class Command:
    """One PUBLISH to $file: verb is init, segment, fin, abort or status."""

    def __init__(self, topic, payload, client_id, version):
        self.topic, self.payload = topic, payload
        self.client_id, self.version = client_id, version
        levels = topic.split("/")
        self.is_async, self.file_id = levels[0] == "$file-async", levels[1]
        self.verb = levels[2] if not levels[2].isdigit() else "segment"
        self.offset = int(levels[2]) if levels[2].isdigit() else None
        self.size = int(levels[3]) if self.verb == "fin" else None
        rest = levels[4:] if self.verb == "fin" else levels[3:]
        self.checksum = rest[0] if rest else None

    def __repr__(self):
        return f"<{self.topic[:60]} {len(self.payload)} bytes>"


class File:
    def __init__(self):
        self.meta, self.data, self.ranges, self.state = None, bytearray(), [], "none"

    def write(self, offset, data):
        end = offset + len(data)
        if len(self.data) < end:
            self.data.extend(bytes(end - len(self.data)))
        self.data[offset:end] = data
        if data:
            self.ranges.append((offset, end))
        if self.state == "none":
            self.state = "open"

    def missing(self, size):
        gaps, at = [], 0
        for a, b in sorted(self.ranges):
            if a > at:
                gaps.append([at, a])
            at = max(at, b)
        if size is not None and at < size:
            gaps.append([at, size])
        return gaps

    def received(self):
        end = max([b for _, b in self.ranges], default=0)
        return end - sum(b - a for a, b in self.missing(end))


class FakeServer:
    """on_command(command) may return None (carry on), (reason code, description) to refuse,
    "ignore" for no answer of any kind, or raise Drop. on_packet(connection) comes before, outside the
    lock, and may take its time. is_lazy: nothing is answered until no more comes, and .inflight_max is
    the most that was then unanswered."""

    def __init__(self, connack_props=None, connack_code=0, has_status=True, answers=True):
        self.connack_props, self.connack_code = connack_props, connack_code
        self.has_status, self.answers = has_status, answers
        self.on_command = lambda command: None
        self.on_connect = lambda client_id: None
        self.on_packet = lambda connection: None
        self.commands, self.connections, self.files = [], [], {}
        self.is_lazy, self.inflight_max = False, 0
        self.lock = threading.RLock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            # What is sent right before a reset must be on its way by then.
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=Connection(self, peer).run, daemon=True).start()

    def close(self):
        # Closing alone would leave the thread in accept(), and the port listening.
        if self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()

    def verbs(self):
        return [c.verb for c in self.commands]

    def segments(self):
        return [c for c in self.commands if c.verb == "segment"]

    def file(self, command):
        return self.files.setdefault((command.client_id, command.file_id), File())

    def only_file(self):
        (one,) = self.files.values()
        return one

    def handle(self, command):
        """(reason code, description, more keys of the response)"""
        f = self.file(command)
        if command.verb == "init":
            f.meta = json.loads(command.payload)
            f.state = "open"
        elif command.verb == "segment":
            if command.checksum and hashlib.sha256(command.payload).hexdigest() != command.checksum:
                return 0x80, "checksum_mismatch", {}
            f.write(command.offset, command.payload)
        elif command.verb == "fin":
            return self.finish(f, command)
        elif command.verb == "abort":
            self.files.pop((command.client_id, command.file_id), None)
        elif command.verb == "status" and self.has_status:
            return 0, "success", {"status": self.status(f)}
        else:
            return 0x80, "invalid_offset", {}
        return 0, "success", {}

    @staticmethod
    def finish(f, command):
        gaps = f.missing(command.size)
        if f.meta is None or gaps:
            return 0x80, "incomplete", {"missing": gaps, "missing_bytes": sum(b - a for a, b in gaps)}
        actual = hashlib.sha256(f.data[:command.size]).hexdigest()
        if command.checksum and command.checksum != actual:
            return 0x80, "checksum_mismatch", {"expected": command.checksum, "actual": actual}
        f.state = "exported"
        return 0, "success", {}

    @staticmethod
    def status(f):
        size = (f.meta or {}).get("size")
        gaps = f.missing(size)
        return {"state": f.state, "size": size, "received": f.received(), "frontier": 0,
                "missing": gaps[:32], "truncated": len(gaps) > 32}


class Connection:
    def __init__(self, server, peer):
        self.server, self.peer = server, peer
        self.client_id, self.version, self.subscribed, self.buffer = None, V5, False, bytearray()
        self.held = []

    def run(self):
        try:
            while True:
                if not self.buffer and not select.select([self.peer], [], [], 0.05)[0]:
                    self.release()
                first, body = self.next_packet()
                self.handle(first, Cursor(body))
        except (Drop, OSError, EOFError):
            pass
        # A reset, so that the client meets the loss also while it is writing.
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def take(self, count):
        while len(self.buffer) < count:
            data = self.peer.recv(1 << 18)
            if not data:
                raise EOFError
            self.buffer += data
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def next_packet(self):
        first, length, shift = self.take(1)[0], 0, 0
        while True:
            byte = self.take(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first, self.take(length)

    def handle(self, first, body):
        kind = first >> 4
        if kind == CONNECT:
            self.connect(body)
        elif kind == PUBLISH:
            self.publish(first, body)
        elif kind == SUBSCRIBE:
            packet_id = body.number(2)
            self.subscribed = True
            props = properties(None) if self.version == V5 else b""
            self.peer.sendall(packet(SUBACK, 0, struct.pack(">H", packet_id) + props + b"\1"))
        elif kind == PINGREQ:
            self.peer.sendall(packet(PINGRESP, 0))
        elif kind == DISCONNECT:
            raise EOFError

    def connect(self, body):
        body.blob()
        self.version = body.number(1)
        body.number(1)
        body.number(2)
        if self.version == V5:
            body.properties()
        self.client_id = body.blob().decode()
        self.server.connections.append(self.client_id)
        self.server.on_connect(self.client_id)
        props = properties(self.server.connack_props) if self.version == V5 else b""
        self.peer.sendall(packet(CONNACK, 0, bytes([0, self.server.connack_code]) + props))
        if self.server.connack_code:
            raise EOFError

    def publish(self, first, body):
        topic = body.blob().decode()
        packet_id = body.number(2) if first & 6 else 0
        if self.version == V5:
            body.properties()
        self.server.on_packet(self)
        self.held.append((Command(topic, body.rest(), self.client_id, self.version), packet_id))
        if not self.server.is_lazy:
            self.release()

    def release(self):
        held, self.held = self.held, []
        self.server.inflight_max = max(self.server.inflight_max, len(held))
        for command, packet_id in held:
            self.execute(command, packet_id)

    def execute(self, command, packet_id):
        with self.server.lock:
            self.server.commands.append(command)
            verdict = self.server.on_command(command)
            if verdict == "ignore":
                return
            code, text, more = (*verdict, {}) if verdict else self.server.handle(command)
            self.answer(command, packet_id, code, text, more)

    def answer(self, command, packet_id, code, text, more):
        ack_code = 0 if command.is_async and command.verb == "fin" else code
        props = {"reason_string": text} if ack_code else None
        ack = ack_packet(PUBACK, packet_id, self.version, ack_code, props)
        reply = {"vsn": "0.1", "topic": command.topic, "packet_id": packet_id, "reason_code": code,
                 "reason_description": text, **more}
        message = publish_packet(f"$file-response/{self.client_id}", json.dumps(reply), 0, 0,
                                 self.version)
        self.peer.sendall(ack + (message if self.subscribed and self.server.answers else b""))
