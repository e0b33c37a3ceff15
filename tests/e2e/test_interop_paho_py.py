"""Debian's python3-paho-mqtt, the way EMQX's Python demos use it: everything queued at once."""

import json
import threading

from harness import Skip, cases, eq, sha256, some_bytes, yes

try:
    import paho.mqtt.client as mqtt
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
except ImportError:
    mqtt = None


class Paho:
    def __init__(self, port, client_id, protocol, inflight=200):
        if mqtt is None:
            raise Skip("python3-paho-mqtt is not installed")
        self.responses, self.changed = [], threading.Condition()
        more = {} if protocol == 5 else {"clean_session": True}
        self.client = mqtt.Client(client_id, protocol=protocol, **more)
        self.client.max_inflight_messages_set(inflight)
        self.client.on_message = self.on_message
        self.subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.connect("127.0.0.1", port, keepalive=30)
        self.client.loop_start()

    def on_message(self, _client, _userdata, message):
        with self.changed:
            self.responses.append((message.topic, json.loads(message.payload),
                                   getattr(message, "properties", None)))
            self.changed.notify()

    def listen(self, topic):
        self.client.subscribe(topic, qos=1)
        yes(self.subscribed.wait(10), "SUBACK")

    def wait_responses(self, count):
        with self.changed:
            yes(self.changed.wait_for(lambda: len(self.responses) >= count, 20),
                f"{len(self.responses)} of {count} responses")
        return self.responses

    def publish(self, topic, payload, qos, **more):
        return self.client.publish(topic, payload, qos, **more)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def file_messages(file_id, data, segment_bytes, checksum):
    """(topic, payload) of a whole upload, the empty last segment of EMQX's demo included."""
    messages = [(f"$file/{file_id}/init", json.dumps({"name": "paho.bin", "size": len(data)}))]
    for at in range(0, len(data), segment_bytes):
        messages.append((f"$file/{file_id}/{at}", data[at:at + segment_bytes]))
    messages.append((f"$file/{file_id}/{len(data)}", b""))
    fin = f"$file/{file_id}/fin/{len(data)}"
    messages.append((f"{fin}/{sha256(data)}" if checksum else fin, b""))
    return messages


@cases(protocol=[3, 4, 5], qos=[1, 2])
def test_all_queued_at_once(t, protocol, qos):
    d = t.daemon()
    p = Paho(d.port, "paho-py", protocol)
    p.listen("$file-response/paho-py")
    data = some_bytes(600_000)
    messages = file_messages("f", data, 1024, qos == 1)
    infos = [p.publish(topic, payload, qos) for topic, payload in messages]
    for info in infos:
        info.wait_for_publish(20)
        yes(info.is_published(), "published")
    responses = p.wait_responses(len(messages))
    p.close()
    eq({body["reason_code"] for _, body, _ in responses}, {0}, "reason codes")
    eq(d.export("paho-py", "f", "paho.bin"), data, "export")


@cases(protocol=[4, 5])
def test_one_in_flight(t, protocol):
    """The other habit: each publish is waited for."""
    d = t.daemon()
    p = Paho(d.port, "paho-py", protocol, inflight=1)
    data = some_bytes(100_000)
    for topic, payload in file_messages("f", data, 4096, True):
        info = p.publish(topic, payload, 1)
        info.wait_for_publish(20)
        yes(info.is_published(), topic)
    p.close()
    eq(d.export("paho-py", "f", "paho.bin"), data, "export")


def test_response_topic_of_v5(t):
    d = t.daemon()
    p = Paho(d.port, "paho-py", 5)
    p.listen("my/answers")
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "my/answers"
    properties.CorrelationData = b"\1\2\3"
    p.publish("$file/f/fin/12", b"", 1, properties=properties)
    topic, body, found = p.wait_responses(1)[0]
    p.close()
    eq((topic, body["reason_code"], body["missing"]), ("my/answers", 0x80, [[0, 12]]), "response")
    eq(found.CorrelationData, b"\1\2\3", "correlation data")


@cases(protocol=[4, 5])
def test_same_file_again(t, protocol):
    """The content's hash as file id, the same file sent again later: one export."""
    d = t.daemon()
    data = some_bytes(50_000)
    for _ in range(3):
        p = Paho(d.port, "paho-py", protocol)
        infos = [p.publish(topic, payload, 1)
                 for topic, payload in file_messages(sha256(data), data, 1024, True)]
        for info in infos:
            info.wait_for_publish(20)
            yes(info.is_published(), "published")
        p.close()
    eq([f.read_bytes() for f in d.exported_files()], [data], "exports")
