"""Ordinary publish and subscribe beside file transfer: 3.1, 3.1.1 and 5.0, between all reactors."""

import socket
import time

from harness import ALL, BOTH, V5, V31, V311, cases, eq, yes
from rawmqtt import (DISCONNECT, PUBACK, PUBLISH, PUBREC, SUBACK, ack_packet, publish_packet,
                     subscribe_packet)


def session(version):
    return {"clean": False, "props": {"session_expiry": 600}} if version == V5 else {"clean": False}


@cases(version=ALL, publisher=ALL, qos=[0, 1])
def test_delivery(t, version, publisher, qos):
    """Each published QoS at each subscribed one: the smaller is delivered; on both reactors."""
    t.daemon("reactors=2")
    listeners = [t.client(f"l{i}", version) for i in range(6)]
    for listener in listeners:
        eq(listener.subscribe("a/b", qos=qos).codes, [qos], "SUBACK")
    c = t.client("pub", publisher)
    for published in (0, 1, 2):
        c.publish("a/b", b"text", published)
        for listener in listeners:
            message = listener.message()
            eq((message.topic, message.payload, message.qos, message.retain),
               ("a/b", b"text", min(published, qos), 0), "message")


@cases(version=BOTH)
def test_order(t, version):
    t.daemon("reactors=2")
    listeners = [t.client(f"l{i}", version) for i in range(4)]
    for listener in listeners:
        listener.subscribe("count")
    c = t.client("pub", version)
    for ack in c.publish_all([("count", str(i).encode()) for i in range(500)]):
        eq(ack.reason or 0, 0, "PUBACK")
    for listener in listeners:
        eq([int(listener.message().payload) for _ in range(500)], list(range(500)), "order")


@cases(version=BOTH)
def test_wildcards(t, version):
    t.daemon("reactors=2")
    c = t.client("pub", version)
    table = {
        "#": ["a", "a/b", "a/b/c", "/", "/a", "a/"], "+": ["a"], "a/#": ["a", "a/b", "a/b/c", "a/"],
        "a/+": ["a/b", "a/"], "+/b": ["a/b"], "+/+": ["a/b", "/", "/a", "a/"], "a/+/c": ["a/b/c"],
        "/+": ["/", "/a"], "/#": ["/", "/a"], "+/b/#": ["a/b", "a/b/c"], "$x/+": ["$x/y"],
        "$x/#": ["$x/y"],
    }
    topics = ["a", "a/b", "a/b/c", "/", "/a", "a/", "$x/y", "end"]
    listeners = {f: t.client(f"l{i}", version) for i, f in enumerate(table)}
    for name, listener in listeners.items():
        listener.subscribe(name, "end")
    for topic in topics:
        c.publish(topic, b"x")
    for name, listener in listeners.items():
        seen = []
        while (message := listener.message()).topic != "end":
            seen.append(message.topic)
        eq(sorted(seen), sorted(table[name]), f"topics for {name}")


@cases(version=ALL)
def test_suback_codes(t, version):
    t.daemon()
    c = t.client("c", version)
    bad = 0x9e if version == V5 else 0x80
    eq(c.subscribe(("a", 0), ("b", 1), ("c", 2), ("$share/g/a", 1)).codes, [0, 1, 1, bad],
       "SUBACK: QoS 2 is granted as 1, shared subscriptions are not there")


@cases(version=ALL)
def test_unsubscribe(t, version):
    t.daemon()
    c = t.client("c", version)
    c.subscribe("a", "b")
    ack = c.unsubscribe("a", "never")
    eq(ack.codes, [0, 0x11] if version == V5 else [], "UNSUBACK")
    c.publish("a", b"1")
    c.publish("b", b"2")
    eq(c.message().payload, b"2", "message")


@cases(version=BOTH)
def test_subscribing_again_replaces(t, version):
    t.daemon()
    c = t.client("c", version)
    c.subscribe("a", qos=1)
    c.subscribe("a", qos=0)
    c.publish("a", b"x")
    eq(c.message().qos, 0, "QoS")
    yes(c.quiet(0.1), "only once")


def test_no_local(t):
    t.daemon()
    c, other = t.client("c"), t.client("other")
    c.subscribe(("a", 1 | 4))
    c.publish("a", b"own")
    other.publish("a", b"other")
    eq(c.message().payload, b"other", "message")


@cases(reactors=[1, 2])
def test_subscription_identifiers(t, reactors):
    t.daemon(f"reactors={reactors}")
    c = t.client("c")
    c.subscribe("a/+", props={"subscription_id": 7})
    c.subscribe("a/b", props={"subscription_id": 268_435_455})
    c.subscribe("x")
    t.client("pub").publish("x", b"")
    eq(c.message().props, {}, "without an identifier")
    t.client("pub").publish("a/c", b"")
    eq(c.message().props, {"subscription_id": [7]}, "one")
    t.client("pub").publish("a/b", b"")
    found = list(c.message().props["subscription_id"])
    while not c.quiet(0.1):
        found += c.message().props["subscription_id"]
    eq(sorted(found), [7, 268_435_455], "both, in one message or in two")


def test_properties_are_forwarded(t):
    t.daemon("reactors=2")
    listeners = [t.client(f"l{i}") for i in range(4)]
    for listener in listeners:
        listener.subscribe("a")
    props = {"payload_format": 1, "content_type": "text/plain", "response_topic": "r",
             "correlation_data": b"\0\xff", "user_property": [("k", "v"), ("k", "w"), ("", "é")]}
    t.client("pub").publish("a", "text", props={**props, "topic_alias": 1, "message_expiry": 600})
    for listener in listeners:
        found = listener.message().props
        yes(590 <= found.pop("message_expiry") <= 600, "message expiry, less the time it waited")
        eq(found, props, "properties")


def test_payload_format_is_checked(t):
    """Payload Format 1 says UTF-8; a payload that is none may be refused, never crash."""
    t.daemon()
    c = t.client("c")
    ack = c.publish("a", b"\xff", props={"payload_format": 1})
    yes(ack.reason in (0x10, 0x99), f"PUBACK {ack.reason}")


@cases(qos=[0, 1, 2])
def test_topic_aliases(t, qos):
    d = t.daemon()
    listener = t.client("listener")
    listener.subscribe("#")
    up = t.uploader("al")
    c = up.client
    eq(c.connack.props["topic_alias_maximum"], 32, "topic alias maximum")
    c.publish("first", b"1", qos, props={"topic_alias": 1})
    c.publish("second", b"2", qos, props={"topic_alias": 32})
    c.publish("", b"3", qos, props={"topic_alias": 1})
    c.publish("", b"4", qos, props={"topic_alias": 32})
    c.publish("third", b"5", qos, props={"topic_alias": 1})
    c.publish("third", b"6", qos, props={"topic_alias": 1})
    c.publish("", b"7", qos, props={"topic_alias": 1})
    c.publish("thirD", b"8", qos, props={"topic_alias": 1})
    c.publish("", b"9", qos, props={"topic_alias": 1})
    seen = [(m.topic, m.payload) for m in (listener.message() for _ in range(9))]
    eq(seen, [("first", b"1"), ("second", b"2"), ("first", b"3"), ("second", b"4"), ("third", b"5"),
              ("third", b"6"), ("third", b"7"), ("thirD", b"8"), ("thirD", b"9")], "messages")
    # Commands, too: the response names the real topic.
    up.check("$file/f/init", {"name": "a"}, qos, props={"topic_alias": 5})
    c.publish("", b'{"name":"a"}', qos, props={"topic_alias": 5})
    eq(up.response()["topic"], "$file/f/init", "topic of the response")
    up.check("$file/f/0", b"x" * 200_000, qos, props={"topic_alias": 6})
    c.publish("", b"y" * 200_000, qos, props={"topic_alias": 6})
    eq(up.response()["topic"], "$file/f/0", "topic of the response")
    up.fin("f", 200_000, qos=qos)
    eq(d.export("al", "f", "a"), b"y" * 200_000, "export")


def test_topic_aliases_end_with_the_connection(t):
    t.daemon()
    c = t.client("c", **session(V5))
    c.publish("a", b"", props={"topic_alias": 1})
    c.disconnect()
    c = t.client("c", **session(V5))
    c.send(publish_packet("", b"x", props={"topic_alias": 1}))
    reasons = [p.reason for p in c.wait_closed() if p.type == DISCONNECT]
    yes(reasons in ([0x82], [0x94]), f"DISCONNECT {reasons}")


@cases(version=BOTH)
def test_session_resume(t, version):
    """Messages wait for a session; what was not acknowledged comes again with DUP, in order."""
    t.daemon("reactors=2")
    c = t.client("s", version, auto_ack=False, **session(version))
    yes(not c.connack.session_present, "no session yet")
    c.subscribe("a", qos=1)
    pub = t.client("pub")
    for at in range(3):
        pub.publish("a", str(at).encode())
    first = [c.message() for _ in range(3)]
    c.send(ack_packet(PUBACK, first[0].packet_id, version))
    c.socket.shutdown(socket.SHUT_WR)
    c.wait_closed()  # else the next one could still be sent to it
    for at in range(3, 6):
        pub.publish("a", str(at).encode())
    pub.publish("a", b"q0", qos=0)
    c = t.client("s", version, **session(version))
    yes(c.connack.session_present, "session present")
    again = [c.message() for _ in range(5)]
    eq([m.payload for m in again], [b"1", b"2", b"3", b"4", b"5"], "payloads")
    eq([bool(m.dup) for m in again], [True, True, False, False, False], "DUP")
    eq([m.packet_id for m in again[:2]], [m.packet_id for m in first[1:]], "packet ids")


@cases(version=BOTH)
def test_session_ends(t, version):
    """Clean start drops it; expiry 0 ends it with the connection."""
    t.daemon()
    c = t.client("s", version, **session(version))
    c.subscribe("a")
    c.disconnect()
    c = t.client("s", version, clean=True)
    yes(not c.connack.session_present, "clean start")
    c.subscribe("a")
    c.disconnect()
    c = t.client("s", version, **session(version))
    yes(not c.connack.session_present, "it had ended with its connection")
    t.client("pub").publish("a", b"x")
    yes(c.quiet(0.1), "no subscription is left")


def test_session_expiry(t):
    t.daemon()
    c = t.client("s", clean=False, props={"session_expiry": 1})
    c.disconnect()
    time.sleep(0.2)
    c = t.client("s", clean=False, props={"session_expiry": 1})
    yes(c.connack.session_present, "before it expires")
    c.disconnect()
    time.sleep(2.5)
    c = t.client("s", clean=False, props={"session_expiry": 100})
    yes(not c.connack.session_present, "after it expired")
    # DISCONNECT may shorten it.
    c.disconnect(0, {"session_expiry": 0})
    yes(not t.client("s", clean=False).connack.session_present, "DISCONNECT with expiry 0")


def test_message_expiry(t):
    t.daemon()
    c = t.client("s", **session(V5))
    c.subscribe("a")
    c.disconnect()
    pub = t.client("pub")
    pub.publish("a", b"short", props={"message_expiry": 1})
    pub.publish("a", b"long", props={"message_expiry": 100})
    time.sleep(2.2)
    c = t.client("s", **session(V5))
    message = c.message()
    eq(message.payload, b"long", "the other one has expired")
    yes(95 <= message.props["message_expiry"] <= 98, "the rest of its time")


@cases(version=BOTH)
def test_receive_maximum_of_the_client(t, version):
    """No more QoS 1 messages under way than the client takes, or the daemon's own window."""
    t.daemon("mqtt.inflight=8")
    props = {"props": {"receive_maximum": 3}} if version == V5 else {}
    c = t.client("s", version, auto_ack=False, **props)
    c.subscribe("a")
    pub = t.client("pub")
    for at in range(20):
        pub.publish("a", str(at).encode())
    window = 3 if version == V5 else 8
    got = [c.message() for _ in range(window)]
    yes(c.quiet(0.2), "no more than the window")
    for at in range(20):
        c.send(ack_packet(PUBACK, got[at].packet_id, version))
        if len(got) < 20:
            got.append(c.message())
    eq([int(m.payload) for m in got], list(range(20)), "order")


def test_maximum_packet_size_of_the_client(t):
    """A message that the client can't take is left out, and the rest goes on."""
    t.daemon()
    c = t.client("s", props={"maximum_packet_size": 100})
    c.subscribe("a")
    pub = t.client("pub")
    for payload in (b"x" * 10, b"y" * 200, b"z" * 10):
        pub.publish("a", payload)
    eq([c.message().payload for _ in range(2)], [b"x" * 10, b"z" * 10], "messages")
    yes(c.quiet(0.1), "no more")


@cases(version=ALL, qos=[0, 1])
def test_will(t, version, qos):
    t.daemon("reactors=2")
    listener = t.client("listener")
    listener.subscribe("will/#")
    will = {"topic": "will/1", "payload": b"gone", "qos": qos}
    t.client("w", version, will=will).abandon()
    message = listener.message()
    eq((message.topic, message.payload, message.qos), ("will/1", b"gone", qos), "will")
    # A proper DISCONNECT drops it.
    t.client("w", version, will=will).disconnect()
    yes(listener.quiet(0.2), "no will after DISCONNECT")
    # A takeover and a protocol error publish it.
    t.client("w", version, will=will)
    t.client("w", version)
    eq(listener.message().payload, b"gone", "will at takeover")
    c = t.client("v", version, will=will)
    c.send(b"\xff\xff\xff\xff\xff")
    eq(listener.message().payload, b"gone", "will after a malformed packet")


def test_will_of_v5(t):
    t.daemon()
    listener = t.client("listener")
    listener.subscribe("will")
    will = {"topic": "will", "payload": "é", "qos": 1,
            "props": {"content_type": "text", "user_property": [("k", "v")]}}
    c = t.client("w", will=will)
    c.disconnect(0x04)
    message = listener.message()
    eq((message.payload, message.props),
       ("é".encode(), {"content_type": "text", "user_property": [("k", "v")]}), "will by DISCONNECT 0x04")
    delayed = {**will, "props": {"will_delay": 1}}
    c = t.client("w", clean=False, props={"session_expiry": 100}, will=delayed)
    c.abandon()
    yes(listener.quiet(0.5), "not yet")
    eq(listener.message(timeout=5).payload, "é".encode(), "after its delay")
    c = t.client("w", clean=False, props={"session_expiry": 100}, will=delayed)
    c.abandon()
    time.sleep(0.2)
    t.client("w", clean=False, props={"session_expiry": 100})
    yes(listener.quiet(1.5), "not when the client is back in time")


def test_will_to_file_topics_is_never_executed(t):
    d = t.daemon()
    up = t.uploader("w2")
    for topic, payload in (("$file/f/init", b'{"name":"a"}'), ("$file/f/0", b"x"),
                           ("$file-async/f/init", b'{"name":"a"}')):
        try:
            t.client("w", will={"topic": topic, "payload": payload, "qos": 1}).abandon()
        except ConnectionError as refused:
            yes("reason=0x87" in str(refused), f"a CONNACK that refuses it: {refused}")
    time.sleep(0.2)
    up = t.uploader("w")
    eq(up.status("f")["state"], "none", "state")
    eq(d.stats()["transfers_open"], 0, "transfers_open")


@cases(version=BOTH)
def test_queue_is_bounded(t, version):
    """A subscriber that does not read costs a bounded queue, and hurts nobody."""
    d = t.daemon("mqtt.queue_messages=100")
    c = t.client("s", version, **session(version))
    c.subscribe("a")
    c.disconnect()
    pub = t.client("pub")
    pub.publish_all([("a", str(i).encode()) for i in range(500)])
    c = t.client("s", version, **session(version))
    pub.publish("a", b"end")
    seen = []
    while (payload := c.message().payload) != b"end":
        seen.append(int(payload))
    yes(90 <= len(seen) <= 200, f"{len(seen)} messages were kept")
    eq(seen[:90], list(range(90)), "the oldest are kept")
    eq(d.is_alive(), True, "daemon")


def test_subscriber_that_never_reads(t):
    d = t.daemon()
    stuck = t.client("stuck", receive_buffer=4096)
    stuck.subscribe("a", qos=0)
    other = t.client("other")
    other.subscribe("a", qos=0)
    pub = t.client("pub")
    before = d.rss_bytes()
    for _ in range(60):
        for _ in range(10):
            pub.publish("a", b"x" * 100_000, qos=0)
        pub.ping()
        for _ in range(10):
            eq(len(other.message().payload), 100_000, "message")
    if t.slow == 1:
        yes(d.rss_bytes() - before < 32 << 20, f"memory grew by {d.rss_bytes() - before}")


def test_subscriptions_max(t):
    t.daemon("mqtt.subscriptions_max=5")
    c = t.client("c")
    eq(c.subscribe(*"abcdefg").codes, [1] * 5 + [0x97] * 2, "SUBACK")
    eq(c.subscribe("a").codes, [1], "an existing one can be replaced")


def test_many_filters_in_one_packet(t):
    t.daemon("mqtt.subscriptions_max=1000")
    c = t.client("c")
    names = [f"t/{i}" for i in range(500)]
    eq(c.subscribe(*names).codes, [1] * 500, "SUBACK")
    c.publish("t/499", b"x")
    eq(c.message().topic, "t/499", "topic")
    eq(c.unsubscribe(*names).codes, [0] * 500, "UNSUBACK")


@cases(version=[V31, V311])
def test_v3_qos_1_and_2_are_acknowledged(t, version):
    t.daemon()
    c = t.client("c", version)
    c.send(publish_packet("nobody", b"x", 1, 5, version))
    eq(c.receive().type, PUBACK, "PUBACK")
    c.send(publish_packet("nobody", b"x", 2, 6, version))
    eq(c.receive().type, PUBREC, "PUBREC")
    c.release(6)


def test_no_matching_subscribers(t):
    t.daemon("reactors=1")
    c = t.client("c")
    eq(c.publish("nobody", b"x").reason, 0x10, "PUBACK")
    eq(c.publish("nobody", b"x", 2).reason, 0x10, "PUBREC")
    c.subscribe("nobody")
    eq(c.publish("nobody", b"x").reason, 0, "PUBACK")


def test_publish_to_reserved_topics(t):
    t.daemon()
    c = t.client("c")
    for topic in ("$SYS/broker", "$file-event/exported", "$file-response/other"):
        eq(c.publish(topic, b"x").reason, 0x87, f"PUBACK of {topic}")
        eq(c.publish(topic, b"x", 2).reason, 0x87, f"PUBREC of {topic}")
    c.subscribe("own", "$file-response/c")
    eq(c.publish("$file-response/c", b"x").reason, 0, "its own response topic")
    eq(c.message().payload, b"x", "message")


def test_packets_of_all_kinds_in_one_write(t):
    t.daemon()
    c = t.client("c")
    c.send(subscribe_packet([("a", 1)], 1) + publish_packet("a", b"1", 1, 2) +
           publish_packet("a", b"2", 0) + b"\xc0\x00" + publish_packet("$file/f/status", b"", 1, 3) +
           publish_packet("a", b"3", 1, 4))
    eq(c.wait(SUBACK).codes, [1], "SUBACK")
    eq([c.message().payload for _ in range(3)], [b"1", b"2", b"3"], "messages")
    eq([c.wait(PUBACK).packet_id for _ in range(3)], [2, 3, 4], "PUBACKs")
    eq([p for p in c.backlog if p.type == PUBLISH], [], "no more messages")
