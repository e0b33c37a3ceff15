"""limits per user: what all connections and open transfers of one user name have together."""

import socket
import threading
import time

from harness import cases, eq, limit, segments, some_bytes, until, yes
from rawmqtt import Closed, Timeout, connect_packet, publish_packet, send_behind_connect

MIB = 1 << 20
# Whatever the number of reactors, each has some of these.
IDS = [f"cam{i}" for i in range(6)]


def at_once(functions):
    """Runs them side by side; how long each took."""
    took, errors = [None] * len(functions), []

    def run(at):
        start = time.monotonic()
        try:
            functions[at]()
        except Exception as error:  # shown by the test
            errors.append(error)
        took[at] = time.monotonic() - start

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return took


def upload(client, file_id, data, segment_bytes):
    messages = [(f"$file/{file_id}/init", b'{"name": "a.bin"}'),
                *segments(file_id, data, segment_bytes), (f"$file/{file_id}/fin/{len(data)}", b"")]
    for ack in client.publish_all(messages, timeout=60):
        eq(ack.reason, 0, "reason")


def refused(up, file_id, **meta):
    up.init(file_id, code=0x97, description="quota_exceeded", **meta)


@cases(reactors=[1, 2])
def test_open_transfers_of_a_user(t, reactors):
    """Over all its client ids and reactors, across restarts; of nobody else."""
    d = t.daemon("transfer.open_user_max=3", f"reactors={reactors}")
    ups = [t.uploader(c, username="anna") for c in IDS]
    for up in ups[:3]:
        up.init("f")
    for up in ups:
        refused(up, "g")
        up.segment("h", 0, b"x", code=0x97, description="quota_exceeded")
    yes("transfer refused: the user's limit is reached limit=transfer.open_user_max user=anna clientid=cam"
        in d.log(), "the log names limit and user")
    others = [t.uploader("bob1", username="bob"), t.uploader("bob2", username="bob"),
              t.uploader("none"), t.uploader("empty", username="")]
    for up in others[:3]:
        up.init("f")
    others[0].init("g")
    refused(others[1], "g")
    for up in others[2:]:
        for i in range(5):
            up.init(f"more{i}")
    d.restart(kill=True)
    ups = [t.uploader(c, username="anna") for c in IDS]
    for up in ups:
        refused(up, "g")
    for up in ups[:3]:
        up.init("f")  # those that are open go on
    ups[0].abort("f")
    ups[1].upload("f", b"content")
    ups[4].init("g")
    ups[5].init("g")
    refused(ups[0], "g")


def test_a_transfer_is_of_who_opened_it(t):
    """Not of the client id, nor of who goes on with it; and a session is of no user."""
    t.daemon("transfer.open_user_max=1", "mqtt.session_expiry_max=1h")
    t.uploader("cam", username="anna").init("f")
    up = t.uploader("cam", username="bob", clean=False)  # takes over
    up.segment("f", 0, b"abc")
    up.init("g")
    refused(up, "h")
    up = t.uploader("cam", username="anna", clean=False)
    refused(up, "h")
    up.fin("f", 3)
    up.init("h")
    up = t.uploader("cam", clean=False)
    for i in range(3):
        up.init(f"i{i}")


def test_staged_bytes_of_a_user(t):
    """As declared and as far as segments reach; and after a restart with lower limits nothing that
    was acknowledged is lost."""
    d = t.daemon("transfer.staged_user_max=1MiB", "reactors=2")
    a, b = t.uploader("a", username="anna"), t.uploader("b", username="anna")
    other, nobody = t.uploader("c", username="bob"), t.uploader("d")
    refused(a, "f", size=MIB + 1)
    yes("limit=transfer.staged_user_max user=anna clientid=a" in d.log(), "the log names the limit")
    data = some_bytes(600_000)
    a.init("f", size=600_000)
    b.segment("g", 400_000, b"x" * 1000)
    b.segment("g", 500_000, b"x" * 1000, code=0x97, description="quota_exceeded")
    b.segment("g", 440_000, b"x" * 100_000, code=0x97, description="quota_exceeded")
    b.segment("g", 0, b"x" * 1000)
    other.init("f", size=MIB)
    nobody.init("f", size=MIB)
    nobody.init("g", size=MIB)
    a.upload("f", data, segment_bytes=50_000, fin=False, size=600_000)
    d.options = ("transfer.staged_user_max=64KiB", "transfer.open_user_max=1", "reactors=1")
    d.restart(kill=True)
    a, b = t.uploader("a", username="anna"), t.uploader("b", username="anna")
    refused(a, "h", size=1)
    a.fin("f", 600_000)
    eq(d.export("a", "f", "a.bin"), data, "export")
    eq(b.status("g")["received"], 2000, "received")
    b.segment("g", 1000, b"y" * 1000)
    b.segment("g", 401_000, b"y", code=0x97, description="quota_exceeded")
    b.abort("g")
    b.upload("h", data[:65536], segment_bytes=10_000)


@limit(120)
@cases(segment_bytes=[1000, 20_000, 300_000])
def test_bytes_of_a_user_are_paced(t, segment_bytes):
    """Whichever way they take: the connections of a user, on several reactors, have one rate, and all
    of them an equal part. No keep alive and no least rate is held against those that wait."""
    d = t.daemon("limits.user_bytes_rate=2MiB", "reactors=2", "mqtt.min_rate=300KiB",
                 "mqtt.min_rate_window=1s")
    data = some_bytes(2 * MIB)
    upload(t.client("first", username="anna"), "f", data, segment_bytes)  # what may come at once
    clients = [t.client(c, username="anna", keep_alive=2) for c in IDS[:4]]
    took = at_once([lambda c=c: upload(c, "f", data, segment_bytes) for c in clients])
    yes(3.4 <= max(took), f"8 MiB at 2 MiB/s took {took}")
    yes(min(took) > max(took) / 2, f"each has its part: {took}")
    for c in IDS[:4]:
        eq(d.export(c, "f", "a.bin"), data, "export")
    yes("user over its rate is read more slowly user=anna clientid=" in d.log() and
        "limit=limits.user_bytes_rate per_s=2097152" in d.log(), "the log says so")
    for name in ({"username": "bob"}, {}):
        took = at_once([lambda: upload(t.client(**name), "f", data[:MIB], segment_bytes)])
        yes(took[0] < 1.5, f"another took {took}")


@limit(90)
def test_messages_of_a_user_are_paced(t):
    d = t.daemon("limits.user_messages_rate=200", "reactors=2")
    t.client("first", username="anna").publish_all([("t", b"")] * 200)  # what may come at once
    clients = [t.client(c, username="anna") for c in IDS[:3]]
    took = at_once([lambda c=c: c.publish_all([("t", b"")] * 200, window=100, timeout=60)
                    for c in clients])
    yes(2.4 <= max(took) <= 9, f"600 messages at 200/s took {took}")
    yes(min(took) > max(took) / 2, f"each has its part: {took}")
    yes("limit=limits.user_messages_rate per_s=200" in d.log(), "the log says so")
    for name in ({"username": "bob"}, {}):
        took = at_once([lambda: t.client(**name).publish_all([("t", b"")] * 150)])
        yes(took[0] < 1.5, f"another took {took}")


@limit(90)
def test_the_later_of_the_clients_and_the_users_rate_holds(t):
    t.daemon("limits.user_messages_rate=1000", "limits.client_messages_rate=100",
             "limits.user_bytes_rate=100KiB", "limits.client_bytes_rate=1MiB")
    c = t.client("c", username="anna")
    took = at_once([lambda: c.publish_all([("t", b"")] * 300)])[0]
    yes(1.8 <= took, f"300 messages at 100/s, of which 100 at once, took {took:.2f} s")
    took = at_once([lambda: c.publish_all([("t", bytes(10_000))] * 30)])[0]
    yes(1.7 <= took, f"300 kB at 100 KiB/s, of which one second's at once, took {took:.2f} s")


@limit(90)
@cases(share=[0, 1])
def test_a_user_that_comes_back_owes_what_it_owed(t, share):
    """Another client id buys nothing, be it after the last connection or beside it."""
    t.daemon("limits.user_messages_rate=100", "reactors=2")
    start = time.monotonic()
    for c in IDS[:4]:
        client = t.client(c, username="anna")
        client.publish_all([("t", b"")] * 100)
        if not share:
            client.disconnect()
    took = time.monotonic() - start
    yes(2.8 <= took, f"400 messages at 100/s, of which 100 at once, took {took:.2f} s")


@limit(90)
def test_bytes_behind_connect_are_the_users(t):
    """What comes together with CONNECT is charged, from whichever client id."""
    d = t.daemon("limits.user_bytes_rate=256KiB", "reactors=2")
    start = time.monotonic()
    for i in range(20):
        send_behind_connect(d.port, connect_packet(f"c{i}", username="anna"), 55, 1000)
    took = time.monotonic() - start
    yes(2.8 <= took, f"20 × 55 KiB at 256 KiB/s, of which one second's at once, took {took:.2f} s")


@limit(120)
@cases(limited=["limits.user_bytes_rate=256KiB", "limits.user_messages_rate=500"],
       payload_bytes=[100, 60_000])
def test_no_connection_of_a_user_starves(t, limited, payload_bytes):
    """Beside many that send without end, one that has little to say has its turn: about once a
    second, or when each of the others has had a message through."""
    t.daemon(limited, "reactors=2")
    hogs = [t.client(f"hog{i}", username="anna", timeout=60) for i in range(24)]
    piece = publish_packet("t", bytes(payload_bytes)) * (MIB // (payload_bytes + 10) + 1)
    done = threading.Event()

    def send(client):
        try:
            while not done.is_set():
                client.send(piece)
        except (Closed, Timeout):
            pass

    threads = [threading.Thread(target=send, args=(c,)) for c in hogs]
    for thread in threads:
        thread.start()
    try:
        time.sleep(3)
        quiet, waited = t.client("quiet", username="anna", timeout=30), []
        for _ in range(8):
            start = time.monotonic()
            quiet.publish("t", b"x")
            waited.append(time.monotonic() - start)
        most = 3 if "bytes" in limited else 0.5
        yes(max(waited[1:]) < most * t.slow, f"a packet waited {waited}")
    finally:
        done.set()
        for c in hogs:
            c.socket.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def test_users_are_forgotten(t):
    """A user name is kept no longer than somebody bears it."""
    d = t.daemon("transfer.open_user_max=10", "limits.user_bytes_rate=1MiB")
    name = "n" * 30_000

    def come_and_go(count):
        for i in range(count):
            c = t.client(f"c{i}", username=f"{i}{name}")
            c.publish("t", b"x")
            c.disconnect()

    come_and_go(50)
    before = d.rss_bytes()
    come_and_go(1000)
    if t.slow == 1:  # a sanitizer keeps what was freed
        until(lambda: d.rss_bytes() < before + 10 * MIB, "30 MB of user names are forgotten")
