"""Response messages: where they go, what they carry; Request Problem Information."""

import json

from harness import ALL, BOTH, V5, V311, cases, check_ack, eq, yes
from rawmqtt import DISCONNECT


@cases(qos=[0, 1, 2])
def test_response_topic_and_correlation_data(t, qos):
    t.daemon()
    up = t.uploader("rt")
    listener = t.client("listener")
    listener.subscribe("answers/rt")
    data = bytes(range(256))
    props = {"response_topic": "answers/rt", "correlation_data": data}
    for topic, code, description in (("$file/f/init", 0, "success"), ("$file/f/0", 0, "success"),
                                     ("$file/f/x", 0x80, "invalid_offset"),
                                     ("$file/f/fin/99", 0x80, "incomplete"),
                                     ("$file-async/f/fin/99", 0x80, "incomplete"),
                                     ("$file/f/abort", 0, "success"), ("$file/f/status", 0, "success")):
        up.client.publish(topic, b'{"name":"a"}', qos, props=props)
        message = listener.message()
        eq((message.topic, message.qos, message.retain), ("answers/rt", 1, 0), "message")
        eq(message.props.get("correlation_data"), data, "correlation data")
        body = json.loads(message.payload)
        eq((body["topic"], body["reason_code"], body["reason_description"]),
           (topic, code, description), "response message")
        eq(body["packet_id"], up.client.last_id if qos else 0, "packet_id")
    yes(up.client.quiet(0.1), "nothing goes to the default topic")


def test_correlation_data_without_response_topic(t):
    """Echoed on the default topic as well."""
    t.daemon()
    up = t.uploader("corr")
    up.client.publish("$file/f/abort", b"", props={"correlation_data": b"\0\1"})
    message = up.client.message()
    eq((message.topic, message.props.get("correlation_data")), ("$file-response/corr", b"\0\1"),
       "message")


def test_response_topic_of_a_topic_without_subscriber(t):
    t.daemon()
    up = t.uploader()
    check_ack(up.client.publish("$file/f/abort", b"", props={"response_topic": "nobody/here"}), V5, 0,
              None)
    up.check("$file/f/abort")


@cases(topic=["$file-response/victim", "$file-event/exported", "$SYS/x", "$file-response"])
def test_response_topic_must_be_allowed(t, topic):
    """A topic that the publisher may not publish to: refused, and nothing is executed."""
    t.daemon("events.subscribers=*")
    victim = t.uploader("victim")
    watcher = t.client("watcher")
    watcher.subscribe("$file-event/#", "$SYS/x")
    up = t.uploader("up")
    ack = up.client.publish("$file/f/init", b'{"name":"a"}', props={"response_topic": topic})
    eq(ack.reason, 0x87, "reason code")
    yes(victim.client.quiet(0.1) and watcher.quiet(0.1), "nothing goes there")
    up.client.backlog.clear()
    eq(t.uploader("up").status("f")["state"], "none", "state")


@cases(topic=["a/+", "#", "a/#/b"])
def test_response_topic_with_wildcards_is_a_protocol_error(t, topic):
    t.daemon()
    c = t.client()
    raw = {"response_topic": topic}
    error = None
    try:
        c.publish("$file/f/abort", b"", props=raw)
    except Exception as caught:
        error = caught
    yes(error is not None, "the connection ends")
    reasons = [p.reason for p in c.wait_closed() + list(c.backlog) if p.type == DISCONNECT]
    yes(reasons in ([0x82], [0x90], [0x81]), f"DISCONNECT with {reasons}")


@cases(qos=[1, 2])
def test_no_reason_string_without_problem_information(t, qos):
    t.daemon("transfer.file_max=1MiB")
    up = t.uploader("quiet", props={"request_problem_info": 0})
    c = up.client
    for topic, payload, code in (("$file/f", b"", 0x80), ("$file/f/init", b"{}", 0x80),
                                 ("$file/f/init", b'{"name":"a","size":2000000}', 0x97),
                                 ("$file/f/fin/5", b"", 0x80), ("$file/f/2000000", b"x", 0x97),
                                 (f"$file/f/0/{'0' * 64}", b"x", 0x80)):
        ack = c.publish(topic, payload, qos)
        eq((f"0x{ack.reason:02x}", ack.props), (f"0x{code:02x}", {}), f"ack of {topic}")
        # The response message is application data: it tells the reason all the same.
        body = up.response()
        eq((body["topic"], body["reason_code"]), (topic, code), "response message")
        yes(body["reason_description"] not in ("", "success"), "description")


@cases(qos=[1, 2])
def test_reason_string_with_problem_information(t, qos):
    t.daemon()
    up = t.uploader("loud", props={"request_problem_info": 1})
    up.check("$file/f", b"", qos, 0x80, "invalid_file_command")


def test_reason_string_gives_way_to_a_small_maximum_packet_size(t):
    """A reason string that would make the packet too large for the client is left out."""
    t.daemon()
    c = t.client(props={"maximum_packet_size": 16})
    ack = c.publish("$file/f")
    eq((ack.reason, ack.props), (0x80, {}), "PUBACK")


@cases(version=ALL)
def test_others_cannot_listen(t, version):
    t.daemon()
    spy = t.client("spy", version)
    refused = 0x87 if version == V5 else 0x80
    for topic in ("$file-response/up", "$file-response/+", "$file-response/#", "$file-response",
                  "$file-response/up/#", "$file-response/spy/#"):
        eq(spy.subscribe(topic).codes, [refused], f"SUBACK of {topic}")
    eq(spy.subscribe("#", "+/up", "$file-response/spy").codes, [1, 1, 1], "SUBACK")
    up = t.uploader("up")
    up.init("f")
    yes(spy.quiet(0.2), "the spy hears nothing")
    # Nor can it forge an answer.
    ack = spy.publish("$file-response/up", b"{}")
    if version == V5:
        eq(ack.reason, 0x87, "PUBACK of a forged response")
    yes(up.client.quiet(0.1), "nothing reaches the victim")


@cases(version=BOTH)
def test_subscribed_with_qos_0(t, version):
    """Responses are published at QoS 1 and delivered at the subscription's QoS."""
    t.daemon()
    c = t.client("q0", version)
    eq(c.subscribe("$file-response/q0", qos=0).codes, [0], "SUBACK")
    c.publish("$file/f/abort")
    message = c.message()
    eq((message.qos, json.loads(message.payload)["reason_code"]), (0, 0), "message")


@cases(version=BOTH)
def test_responses_wait_for_a_session(t, version):
    """A client that lost its connection finds the outcome when it is back with its session."""
    t.daemon()
    options = {"clean": False}
    if version == V5:
        options["props"] = {"session_expiry": 600}
    up = t.uploader("back", version, **options)
    up.client.auto_ack = False
    up.client.publish("$file/f/init", b'{"name":"a"}')
    first = up.client.message()
    up.client.abandon()
    again = t.client("back", version, **options)
    yes(again.connack.session_present, "session present")
    message = again.message()
    eq((message.payload, message.packet_id), (first.payload, first.packet_id), "the same message")
    yes(message.dup, "DUP is set")


def test_version_of_the_publisher_does_not_matter_to_the_listener(t):
    """A v3 listener gets a v5 publisher's response, without the properties."""
    t.daemon()
    listener = t.client("v3", V311)
    listener.subscribe("answers/#")
    c = t.client("v5")
    c.publish("$file/f/abort", b"", props={"response_topic": "answers/1", "correlation_data": b"x"})
    eq(json.loads(listener.message().payload)["topic"], "$file/f/abort", "topic")
