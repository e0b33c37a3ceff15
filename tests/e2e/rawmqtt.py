"""A small MQTT client that hides nothing: MQTT 3.1, 3.1.1 and 5.0 over one TCP socket.

It can send any bytes, well-formed or not, and shows every packet that comes back with its reason
code and properties, which the published client libraries do not. Nothing happens behind the
caller's back except one thing: a QoS 1 PUBLISH that is received is acknowledged (auto_ack).

Strings may be given as str (encoded as UTF-8) or as bytes (sent as they are). Functions whose
names end in _packet only build bytes.
"""

import select
import socket
import struct
import time
from collections import deque

(CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE,
 UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH) = range(1, 16)
TYPE_NAMES = ("reserved CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK "
              "UNSUBSCRIBE UNSUBACK PINGREQ PINGRESP DISCONNECT AUTH").split()

V31, V311, V5 = 3, 4, 5
VERSION_NAMES = {V31: "v3.1", V311: "v3.1.1", V5: "v5"}

PROPERTIES = {
    "payload_format": (0x01, "u8"), "message_expiry": (0x02, "u32"), "content_type": (0x03, "str"),
    "response_topic": (0x08, "str"), "correlation_data": (0x09, "bin"),
    "subscription_id": (0x0b, "var"), "session_expiry": (0x11, "u32"),
    "assigned_client_id": (0x12, "str"), "server_keep_alive": (0x13, "u16"),
    "auth_method": (0x15, "str"), "auth_data": (0x16, "bin"),
    "request_problem_info": (0x17, "u8"), "will_delay": (0x18, "u32"),
    "request_response_info": (0x19, "u8"), "response_info": (0x1a, "str"),
    "server_reference": (0x1c, "str"), "reason_string": (0x1f, "str"),
    "receive_maximum": (0x21, "u16"), "topic_alias_maximum": (0x22, "u16"),
    "topic_alias": (0x23, "u16"), "maximum_qos": (0x24, "u8"), "retain_available": (0x25, "u8"),
    "user_property": (0x26, "pair"), "maximum_packet_size": (0x27, "u32"),
    "wildcard_available": (0x28, "u8"), "subscription_ids_available": (0x29, "u8"),
    "shared_available": (0x2a, "u8"),
}
PROPERTY_NAMES = {number: (name, kind) for name, (number, kind) in PROPERTIES.items()}
REPEATABLE = ("user_property", "subscription_id")


class Closed(Exception):
    """The daemon closed or reset the connection."""


class Timeout(Exception):
    """Nothing that was waited for arrived in time."""


def to_bytes(value):
    return value.encode() if isinstance(value, str) else bytes(value)


def varint(value):
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def string(value):
    value = to_bytes(value)
    return struct.pack(">H", len(value)) + value


def property_bytes(name, value):
    number, kind = PROPERTIES[name]
    encode = {
        "u8": lambda v: struct.pack(">B", v), "u16": lambda v: struct.pack(">H", v),
        "u32": lambda v: struct.pack(">I", v), "var": varint, "str": string, "bin": string,
        "pair": lambda v: string(v[0]) + string(v[1]),
    }[kind]
    return bytes([number]) + encode(value)


def properties(values):
    """The properties of a v5 packet with their length; a list is written as several properties."""
    body = b""
    for name, value in (values or {}).items():
        for one in value if isinstance(value, list) else [value]:
            body += property_bytes(name, one)
    return varint(len(body)) + body


def packet(kind, flags, body=b""):
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def connect_packet(client_id, version=V5, clean=True, keep_alive=0, props=None, will=None,
                   username=None, password=None, name=None, level=None, flags=None):
    """will is a dict: topic, payload, qos, retain, props. name, level and flags can be falsified."""
    name = name if name is not None else ("MQIsdp" if version == V31 else "MQTT")
    bits = 0x02 if clean else 0
    payload = string(client_id)
    if will:
        bits |= 0x04 | will.get("qos", 0) << 3 | (0x20 if will.get("retain") else 0)
        if version == V5:
            payload += properties(will.get("props"))
        payload += string(will["topic"]) + string(will["payload"])
    if username is not None:
        bits |= 0x80
        payload += string(username)
    if password is not None:
        bits |= 0x40
        payload += string(password)
    head = string(name) + bytes([version if level is None else level])
    head += bytes([bits if flags is None else flags]) + struct.pack(">H", keep_alive)
    if version == V5:
        head += properties(props)
    return packet(CONNECT, 0, head + payload)


def publish_packet(topic, payload=b"", qos=0, packet_id=0, version=V5, props=None, dup=False,
                   retain=False):
    body = string(topic)
    if qos:
        body += struct.pack(">H", packet_id)
    if version == V5:
        body += properties(props)
    return packet(PUBLISH, (8 if dup else 0) | qos << 1 | (1 if retain else 0),
                  body + to_bytes(payload))


def ack_packet(kind, packet_id, version=V5, reason=0, props=None):
    body = struct.pack(">H", packet_id)
    if version == V5 and (reason or props):
        body += bytes([reason]) + (properties(props) if props else b"")
    return packet(kind, 2 if kind == PUBREL else 0, body)


def send_behind_connect(port, connect, messages, payload_bytes):
    """One connection that sends it all in one piece, and is over when it is answered a ping."""
    data = (connect + publish_packet("t", bytes(payload_bytes)) * messages + PINGREQ_PACKET)
    with socket.create_connection(("127.0.0.1", port), 15) as s:
        s.sendall(data)
        got = b""
        while not got.endswith(b"\xd0\x00"):  # PINGRESP
            more = s.recv(4096)
            if not more:
                raise Closed("before the PINGRESP")
            got += more


def subscribe_packet(filters, packet_id, version=V5, props=None):
    """filters: (filter, options byte) pairs."""
    body = struct.pack(">H", packet_id) + (properties(props) if version == V5 else b"")
    for name, options in filters:
        body += string(name) + bytes([options])
    return packet(SUBSCRIBE, 2, body)


def unsubscribe_packet(filters, packet_id, version=V5, props=None):
    body = struct.pack(">H", packet_id) + (properties(props) if version == V5 else b"")
    for name in filters:
        body += string(name)
    return packet(UNSUBSCRIBE, 2, body)


def disconnect_packet(version=V5, reason=0, props=None):
    body = b""
    if version == V5 and (reason or props):
        body = bytes([reason]) + (properties(props) if props else b"")
    return packet(DISCONNECT, 0, body)


PINGREQ_PACKET = packet(PINGREQ, 0)


class Cursor:
    """Reads a packet body; running past its end is an error, as it is for any client."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, count):
        piece = self.body[self.at:self.at + count]
        if len(piece) != count:
            raise ValueError("packet from the daemon is shorter than its own lengths")
        self.at += count
        return piece

    def number(self, count):
        return int.from_bytes(self.take(count), "big")

    def varint(self):
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def blob(self):
        return self.take(self.number(2))

    def left(self):
        return len(self.body) - self.at

    def rest(self):
        return self.take(self.left())

    def properties(self):
        inner = Cursor(self.take(self.varint()))
        found = {}
        while inner.left():
            name, kind = PROPERTY_NAMES[inner.varint()]
            if kind == "str":
                value = inner.blob().decode()
            elif kind == "bin":
                value = inner.blob()
            elif kind == "pair":
                value = (inner.blob().decode(), inner.blob().decode())
            elif kind == "var":
                value = inner.varint()
            else:
                value = inner.number({"u8": 1, "u16": 2, "u32": 4}[kind])
            if name in REPEATABLE:
                found.setdefault(name, []).append(value)
            elif name in found:
                raise ValueError(f"the daemon repeated the property {name}")
            else:
                found[name] = value
        return found


class Packet:
    """One received packet. Fields that its type does not have are None (props: empty)."""

    def __init__(self, first, body, version):
        self.type, self.flags, self.body = first >> 4, first & 15, bytes(body)
        self.packet_id = self.reason = self.topic = self.payload = self.codes = None
        self.qos = self.dup = self.retain = self.session_present = None
        self.props = {}
        self.decode(Cursor(self.body), version)

    @property
    def reason_string(self):
        return self.props.get("reason_string")

    def decode(self, body, version):
        if self.type == CONNACK:
            self.session_present = body.number(1) == 1
            self.reason = body.number(1)
            self.props = body.properties() if version == V5 and body.left() else {}
        elif self.type == PUBLISH:
            self.qos, self.dup, self.retain = self.flags >> 1 & 3, self.flags & 8, self.flags & 1
            self.topic = body.blob().decode()
            self.packet_id = body.number(2) if self.qos else 0
            self.props = body.properties() if version == V5 else {}
            self.payload = body.rest()
        elif self.type in (PUBACK, PUBREC, PUBREL, PUBCOMP):
            self.packet_id = body.number(2)
            if version == V5:
                self.decode_reason(body)
        elif self.type in (SUBACK, UNSUBACK):
            self.packet_id = body.number(2)
            self.props = body.properties() if version == V5 else {}
            self.codes = list(body.rest())
        elif self.type in (DISCONNECT, AUTH):
            self.decode_reason(body)
        if body.left():
            raise ValueError(f"{body.left()} bytes too many in {self!r}")

    def decode_reason(self, body):
        self.reason = body.number(1) if body.left() else 0
        self.props = body.properties() if body.left() else {}

    def __repr__(self):
        text = TYPE_NAMES[self.type]
        for field in ("packet_id", "reason", "topic", "codes", "payload"):
            value = getattr(self, field)
            if value is not None:
                shown = f"0x{value:02x}" if field == "reason" else repr(value)[:200]
                text += f" {field}={shown}"
        return f"<{text} {self.props}>" if self.props else f"<{text}>"


class Client:
    """One connection. Connects and waits for CONNACK unless connect=False."""

    def __init__(self, port, client_id="c", version=V5, connect=True, timeout=15, auto_ack=True,
                 host="127.0.0.1", receive_buffer=None, **options):
        self.client_id, self.version, self.timeout = client_id, version, timeout
        self.auto_ack, self.last_id = auto_ack, 0
        self.owed = None  # in publish_each: PUBACKs that wait for the end of a packet
        self.buffer, self.backlog, self.is_closed = bytearray(), deque(), False
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(timeout)
        self.socket.connect((host, port))
        self.connack = None
        if connect:
            self.send(connect_packet(client_id, version, **options))
            self.connack = self.wait(CONNACK)
            if self.connack.reason != 0:
                raise ConnectionError(f"not let in: {self.connack!r}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- bytes and packets ---

    def send(self, data):
        try:
            self.socket.settimeout(self.timeout)
            self.socket.sendall(data)
        except TimeoutError:
            raise Timeout("the daemon stopped reading") from None
        except OSError as error:
            raise Closed(str(error)) from None

    def read_some(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.socket], [], [], left)[0]:
            raise Timeout("nothing arrived")
        try:
            data = self.socket.recv(1 << 18)
        except OSError as error:
            self.is_closed = True
            raise Closed(str(error)) from None
        if not data:
            self.is_closed = True
            raise Closed("end of stream")
        self.buffer += data

    def next_packet(self):
        """A whole packet from the buffer, or None."""
        if len(self.buffer) < 2:
            return None
        length = shift = 0
        for at in range(1, min(5, len(self.buffer))):
            length |= (self.buffer[at] & 127) << shift
            shift += 7
            if self.buffer[at] < 128:
                break
        else:
            return None
        end = at + 1 + length
        if len(self.buffer) < end:
            return None
        found = Packet(self.buffer[0], self.buffer[at + 1:end], self.version)
        del self.buffer[:end]
        if found.type == PUBLISH and found.qos == 1 and self.auto_ack:
            ack = ack_packet(PUBACK, found.packet_id, self.version)
            if self.owed is None:
                self.send(ack)
            else:
                self.owed += ack
        return found

    def receive(self, timeout=None):
        """The next packet in order of arrival."""
        if self.backlog:
            return self.backlog.popleft()
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            found = self.next_packet()
            if found:
                return found
            self.read_some(deadline)

    def wait(self, *types, packet_id=None, timeout=None):
        """The first packet of these types; others are kept for later calls."""
        def fits(p):
            return p.type in types and packet_id in (None, p.packet_id)

        for p in self.backlog:
            if fits(p):
                self.backlog.remove(p)
                return p
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            p = self.next_packet()
            if p is None:
                try:
                    self.read_some(deadline)
                except (Closed, Timeout) as error:
                    names = "/".join(TYPE_NAMES[t] for t in types)
                    kept = ", ".join(map(repr, self.backlog))
                    raise type(error)(f"{error} while waiting for {names}; had [{kept}]") from None
            elif fits(p):
                return p
            else:
                self.backlog.append(p)

    def wait_closed(self, timeout=None):
        """Reads until the daemon closes; returns what it sent before, oldest first."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            p = self.next_packet()
            if p:
                self.backlog.append(p)
                continue
            try:
                self.read_some(deadline)
            except Closed:
                packets = list(self.backlog)
                self.backlog.clear()
                return packets

    def quiet(self, seconds):
        """True when nothing arrives for so long (and nothing is kept)."""
        if self.backlog:
            return False
        try:
            self.backlog.append(self.receive(seconds))
        except Timeout:
            return True
        return False

    def take_id(self):
        self.last_id = self.last_id % 65535 + 1
        return self.last_id

    # --- whole exchanges ---

    def publish(self, topic, payload=b"", qos=1, packet_id=None, **options):
        """Publishes and sees the handshake through. The PUBACK or PUBREC; None at QoS 0."""
        packet_id = (packet_id or self.take_id()) if qos else 0
        self.send(publish_packet(topic, payload, qos, packet_id, self.version, **options))
        if qos == 0:
            return None
        ack = self.wait(PUBACK if qos == 1 else PUBREC, packet_id=packet_id)
        if qos == 2 and (ack.reason or 0) < 0x80:
            self.release(packet_id)
        return ack

    def release(self, packet_id):
        """The second half of QoS 2; the PUBCOMP."""
        self.send(ack_packet(PUBREL, packet_id, self.version))
        return self.wait(PUBCOMP, packet_id=packet_id)

    def publish_all(self, messages, window=64, timeout=None):
        """Publishes (topic, payload) pairs at QoS 1, so many unacknowledged; the PUBACKs in order."""
        return list(self.publish_each(messages, window, timeout))

    def publish_each(self, messages, window=64, timeout=None):
        """As publish_all, one PUBACK after the other. Sends and reads at once, so neither side can
        wait for the other."""
        deadline = time.monotonic() + (timeout or self.timeout)
        messages, waiting, acks, out = iter(messages), deque(), {}, memoryview(b"")
        self.socket.setblocking(False)
        self.owed = bytearray()
        try:
            while True:
                # What is left of the last packet comes first, so that none is cut.
                batch = [bytes(piece) for piece in (out, self.owed) if len(piece)]
                self.owed.clear()
                size = sum(map(len, batch))
                while len(waiting) < window and size < 1 << 20 and messages:
                    message = next(messages, None)
                    if message is None:
                        messages = None
                        break
                    waiting.append(self.take_id())
                    batch.append(publish_packet(message[0], message[1], 1, waiting[-1],
                                                self.version))
                    size += len(batch[-1])
                out = memoryview(b"".join(batch)) if len(batch) != 1 else memoryview(batch[0])
                if not waiting and not len(out):
                    return
                out = self.exchange(out, acks, deadline)
                while waiting and waiting[0] in acks:
                    yield acks.pop(waiting.popleft())
        finally:
            self.owed = None
            self.socket.settimeout(self.timeout)

    def exchange(self, out, acks, deadline):
        """One step of publish_each: sends what fits, reads what is there; the bytes still to send."""
        left = deadline - time.monotonic()
        readable, writable, _ = select.select([self.socket], [self.socket] if len(out) else [], [],
                                              max(left, 0))
        if left <= 0:
            raise Timeout("acknowledgements missing")
        if writable:
            try:
                out = out[self.socket.send(out):]
            except BlockingIOError:
                pass
            except OSError as error:
                raise Closed(str(error)) from None
        if readable:
            self.read_some(deadline)
            while (p := self.next_packet()) is not None:
                if p.type == PUBACK:
                    acks[p.packet_id] = p
                else:
                    self.backlog.append(p)
        return out

    def subscribe(self, *filters, qos=1, props=None):
        """Each filter may be a string or (filter, options). The SUBACK."""
        pairs = [f if isinstance(f, tuple) else (f, qos) for f in filters]
        packet_id = self.take_id()
        self.send(subscribe_packet(pairs, packet_id, self.version, props))
        return self.wait(SUBACK, packet_id=packet_id)

    def unsubscribe(self, *filters):
        packet_id = self.take_id()
        self.send(unsubscribe_packet(filters, packet_id, self.version))
        return self.wait(UNSUBACK, packet_id=packet_id)

    def message(self, timeout=None):
        """The next PUBLISH from the daemon."""
        return self.wait(PUBLISH, timeout=timeout)

    def ping(self):
        self.send(PINGREQ_PACKET)
        return self.wait(PINGRESP)

    def disconnect(self, reason=0, props=None):
        self.send(disconnect_packet(self.version, reason, props))
        self.close()

    def close(self):
        if not self.is_closed:
            self.is_closed = True
        self.socket.close()

    def abandon(self):
        """Ends the connection with a reset, as a crashed machine's does when it is back."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()
