"""What an operator meets: a second daemon, bad settings, a directory that can't be written."""

import os
import re
import socket

from harness import Skip, cases, eq, yes


def refused(t, *arguments, pattern):
    """sluiced must end at once, status not 0, with one sentence on stderr that matches."""
    result = t.run(t.tool("sluiced"), *arguments, timeout=20 * t.slow)
    yes(result.returncode not in (0, None) and 0 < result.returncode < 100,
        f"exit status {result.returncode}")
    lines = [line for line in result.stderr.splitlines() if line]
    eq(len(lines), 1, f"lines on stderr: {result.stderr}")
    yes(re.search(pattern, lines[0]), f"{lines[0]!r} does not match {pattern!r}")
    yes(len(lines[0]) < 400, "it is one sentence")


def test_second_daemon_on_the_same_directory(t):
    d = t.daemon()
    refused(t, "--data", d.data, "--listen", "127.0.0.1:0", pattern=re.escape(str(d.data)))
    t.client("still").ping()


@cases(reactors=[1, 2])
def test_second_daemon_on_the_same_port(t, reactors):
    d = t.daemon(f"reactors={reactors}")
    refused(t, "--data", t.dir / "other", "--listen", f"127.0.0.1:{d.port}", "-o",
            f"reactors={reactors}", pattern=rf"127\.0\.0\.1:{d.port}")
    t.client("still").ping()


def test_port_of_another_program(t):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(t, "--data", t.dir / "data", "--listen", f"127.0.0.1:{port}",
                pattern=rf"127\.0\.0\.1:{port}")


@cases(address=["127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "nonsense:1883", ":x", "[::1:5",
                "192.0.2.1:1883"])
def test_bad_listen_address(t, address):
    refused(t, "--data", t.dir / "data", "--listen", address, pattern=re.escape(address.split(":")[0]))


def test_data_directory_that_cannot_be_made(t):
    refused(t, "--data", "/proc/sluice", "--listen", "127.0.0.1:0", pattern="/proc/sluice")
    (t.dir / "file").write_text("x")
    refused(t, "--data", t.dir / "file", "--listen", "127.0.0.1:0", pattern=str(t.dir / "file"))


def test_data_directory_that_cannot_be_written(t):
    if os.geteuid() == 0 and t.run("setpriv", "--reuid=65534", "--clear-groups", "true").returncode:
        raise Skip("needs an unprivileged user")
    place = t.dir / "locked"
    place.mkdir(mode=0o555)
    os.chmod(t.dir, 0o755)
    command = [t.tool("sluiced"), "--data", place, "--listen", "127.0.0.1:0"]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--clear-groups", *command]
    result = t.run(*command, timeout=20)
    yes(result.returncode > 0, f"exit status {result.returncode}")
    lines = result.stderr.splitlines()
    yes(len(lines) == 1 and str(place) in lines[0], f"stderr: {result.stderr}")


@cases(option=["nonsense=1", "reactors=0x", "reactors=1000", "mqtt.keep_alive_max=soon",
               "transfer.file_max=12parsecs", "durability=full", "log.level=loud", "mqtt", "=",
               "export.file_mode=999", "io.buffer_size=1KiB"])
def test_bad_option(t, option):
    refused(t, "--data", t.dir / "data", "-o", option, pattern=re.escape(option.split("=")[0]))
    yes(not (t.dir / "data").exists(), "nothing was made")


def test_unknown_argument(t):
    refused(t, "--frobnicate", pattern="--frobnicate")
    refused(t, "stray", pattern="stray")


def test_check_config(t):
    good = t.dir / "good.yaml"
    good.write_text("data: /var/lib/sluice\nlisten: [127.0.0.1:1883]\nmqtt:\n  keep_alive_max: 60s\n")
    result = t.run(t.tool("sluiced"), "-c", good, "--check-config")
    eq((result.returncode, result.stderr), (0, ""), "exit status, stderr")
    for text, pattern in (("mqtt:\n  keep_alive_mx: 60s\n", r"bad\.yaml.*2.*keep_alive_mx"),
                          ("data: a\ndata: b\n", r"bad\.yaml.*2.*data"),
                          ("reactors: many\n", r"bad\.yaml.*1.*reactors"),
                          ("mqtt: 5\n", r"bad\.yaml.*1.*mqtt"), ("data: [\n", r"bad\.yaml")):
        bad = t.dir / "bad.yaml"
        bad.write_text(text)
        refused(t, "--config", bad, "--check-config", pattern=pattern)
    refused(t, "-c", t.dir / "none.yaml", "--check-config", pattern=r"none\.yaml")


def test_dump_config_is_a_config(t):
    """Its output, fed back, gives itself; what was set has no default mark."""
    first = t.run(t.tool("sluiced"), "--dump-config", "-o", "mqtt.packet_max=1MiB", "--data", "/x y")
    eq((first.returncode, first.stderr), (0, ""), "exit status, stderr")
    (t.dir / "dump.yaml").write_text(first.stdout)
    second = t.run(t.tool("sluiced"), "-c", t.dir / "dump.yaml", "--dump-config")
    eq(second.stdout, first.stdout, "second dump")
    line = next(x for x in first.stdout.splitlines() if "packet_max" in x)
    yes("default" not in line and "1MiB" in line.replace(" ", ""), line)
    for key in ("listen", "reactors", "durability", "connections_max", "file_max", "file_mode",
                "splice_min", "threads", "subscribers", "level"):
        yes(re.search(rf"^\s*{key}:", first.stdout, re.M), f"{key} is in the dump")
    yes(first.stdout.count("# default") > 30, "defaults are marked")


def test_config_file_works(t):
    (t.dir / "c.yaml").write_text("mqtt:\n  receive_maximum: 9\ntransfer:\n  file_max: 1MiB\n")
    d = t.daemon("mqtt.topic_alias_maximum=3", arguments=["-c", str(t.dir / "c.yaml")])
    props = t.client("c").connack.props
    eq((props["receive_maximum"], props["topic_alias_maximum"]), (9, 3), "CONNACK")
    t.uploader("u").init("f", size=2 << 20, code=0x97, description="too_large")
    eq(d.is_alive(), True, "daemon")


def test_version_and_help(t):
    result = t.run(t.tool("sluiced"), "--version")
    eq(result.returncode, 0, "exit status")
    yes(re.match(r"sluiced \d+\.\d+\.\d+\n$", result.stdout), result.stdout)
    result = t.run(t.tool("sluiced"), "--help")
    eq(result.returncode, 0, "exit status")
    for word in ("--data", "--listen", "--config", "--check-config", "--dump-config", "-o"):
        yes(word in result.stdout, f"{word} is in the help")


def test_several_listeners(t):
    d = t.daemon(listen=["127.0.0.1:0", "127.0.0.1:0"])
    ports = set(re.findall(r"info listening addr=127\.0\.0\.1:(\d+)", d.new_log()))
    eq(len(ports), 2, "ports")
    for port in ports:
        d.port = int(port)
        t.client(f"c{port}").ping()


def test_ipv6(t):
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        raise Skip("no IPv6 here")
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            raise Skip("no IPv6 loopback here") from None
    d = t.daemon(listen=["127.0.0.1:0", "[::1]:0"])
    found = re.search(r"info listening addr=\"?\[::1\]:(\d+)", d.new_log())
    yes(found, "the log names the IPv6 listener")
    with socket.create_connection(("::1", int(found[1])), 5) as c:
        c.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x")
        eq(c.recv(4), b"\x20\x02\x00\x00", "CONNACK")


def test_few_descriptors(t):
    """Too small a limit is one sentence at start, or the daemon fits itself into it and serves."""
    result = t.run("prlimit", "--nofile=12", t.tool("sluiced"), "--data", t.dir / "data", "--listen",
                   "127.0.0.1:0", timeout=20 * t.slow)
    yes(result.returncode > 0, f"exit status {result.returncode}")
    yes(len(result.stderr.splitlines()) == 1, f"one sentence: {result.stderr}")


def test_log_lines_have_one_form(t):
    d = t.daemon("log.level=debug")
    up = t.uploader('odd "id"\n=é')
    up.upload("f", b"data", name='a "b" = c')
    up.client.send(b"\xff" * 10)
    up.client.wait_closed()
    d.stop()
    form = re.compile(r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warn|info|debug) [a-z][^="]*'
                      r'( [a-z_0-9]+=("([^"\\]|\\.)*"|[^ "]*))*$')
    for line in d.log().splitlines():
        yes(form.match(line), f"log line: {line!r}")
    yes("id" in d.log(), "the client is named")
