"""limits on files: what a client, or a user, has open and exported, until its consumer takes it away."""

import shutil
import time

from harness import V311, cases, eq, limit, until, yes
from rawmqtt import publish_packet

# Whatever the number of reactors, each has some of these.
IDS = [f"cam{i}" for i in range(6)]


def refused(up, file_id, **meta):
    up.init(file_id, code=0x97, description="quota_exceeded", **meta)


def exported(d):
    return len(d.exported_files())


def test_files_of_a_client(t):
    """Open or exported, across restarts; a further generation, too; and of nobody else."""
    d = t.daemon("transfer.files_client_max=3")
    up, other = t.uploader("cam"), t.uploader("other")
    up.upload("a", b"first")
    up.upload("b", b"second")
    up.init("c")
    refused(up, "d")
    up.segment("d", 0, b"x", code=0x97, description="quota_exceeded")
    up.segment("a", 0, b"F", code=0x97, description="quota_exceeded")
    yes("transfer refused: the client's limit is reached limit=transfer.files_client_max clientid=cam"
        in d.log(), "the log names the limit")
    yes(d.log().count("limit=transfer.files_client_max") <= 2, "the log says it once a second")
    up.segment("a", 0, b"first")  # a replay opens nothing
    up.segment("c", 0, b"third")
    up.fin("c", 5)
    refused(up, "d")
    other.upload("a", b"first")
    for kill in (True, False):
        d.restart(kill=kill)
        up = t.uploader("cam")
        refused(up, "d")
        refused(up, "a", name="b.bin")
    (d.export_dir("cam", "b") / "a.bin").unlink()
    up.upload("d", b"fourth")
    refused(up, "e")
    eq(exported(d), 4, "exports")


@limit(90)
def test_a_consumer_that_keeps_up_is_enough(t):
    """It takes whatever it sees; the client never comes to more than it may have."""
    d = t.daemon("transfer.files_client_max=4", "transfer.files_user_max=6", "reactors=2")
    ups = [t.uploader(c, username="anna") for c in IDS[:2]]
    for i in range(60):
        for up in ups:
            up.upload(f"f{i}", b"%d" % i)
        for path in d.exported_files():
            if i % 2:
                shutil.rmtree(path.parent)
            else:
                path.unlink()


@cases(reactors=[1, 2])
def test_files_of_a_user(t, reactors):
    """Over all its client ids and reactors; and who is at it need not be who exported what is
    gone."""
    d = t.daemon("transfer.files_user_max=5", f"reactors={reactors}")
    ups = [t.uploader(c, username="anna") for c in IDS]
    for up in ups[:3]:
        up.upload("f", b"content")
    ups[3].upload("f", b"content")
    ups[4].init("f")
    for up in ups:
        refused(up, "g")
    yes("transfer refused: the user's limit is reached limit=transfer.files_user_max user=anna clientid=cam"
        in d.log(), "the log names limit and user")
    for up in (t.uploader("bob", username="bob"), t.uploader("none"), t.uploader("empty", username="")):
        for i in range(5):
            up.upload(f"f{i}", b"content")
    for at in range(4):
        (d.export_dir(IDS[at], "f") / "a.bin").unlink()
        ups[5 - at].init("g")
        refused(ups[at], "h")
        ups[5 - at].upload("g", b"content")
        refused(ups[at], "h")
    d.restart(kill=True)
    ups = [t.uploader(c, username="anna") for c in IDS]
    for up in ups:
        refused(up, "h")
    shutil.rmtree(d.export_dir(IDS[5], "g"))
    ups[0].init("h")
    refused(ups[1], "h")


def test_what_retention_removes_does_not_count(t):
    d = t.daemon("transfer.files_client_max=2", "export.retention=true", "export.retention_interval=1s")
    up = t.uploader("cam")
    up.upload("a", b"first")
    up.upload("b", b"second", expire_at=int(time.time()) + 2)
    refused(up, "c")
    until(lambda: exported(d) == 1, "the one that was due is gone", 10)
    up.upload("c", b"third")
    refused(up, "d")


def test_what_is_forgotten_does_not_count(t):
    """The replay window is over, though the file is still there."""
    d = t.daemon("transfer.files_client_max=1", "transfer.replay_window=2s")
    up = t.uploader("cam")
    up.upload("a", b"first")
    refused(up, "b")

    def comes_in():
        up.client.publish("$file/b/init", b'{"name": "a.bin"}')
        return up.response()["reason_code"] == 0
    until(comes_in, "there is room again", 10)
    eq(exported(d), 1, "exports")


@limit(60)
def test_v3_is_held(t):
    """As by other quotas: closed without an acknowledgement, so that it sends the command again."""
    d = t.daemon("transfer.files_client_max=1")
    t.uploader("v3", V311).upload("a", b"first")
    c = t.client("v3", V311)
    c.send(publish_packet("$file/b/init", b'{"name": "a.bin"}', 1, 50, V311))
    eq(c.wait_closed(20), [], "packets before the close")
    (d.export_dir("v3", "a") / "a.bin").unlink()
    t.uploader("v3", V311).upload("b", b"second")
