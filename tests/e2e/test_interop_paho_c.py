"""Paho C (libpaho-mqtt-dev): its synchronous and its asynchronous client, as EMQX's C demo uses it."""

from harness import Skip, cases, eq, some_bytes

from pathlib import Path

HERE = Path(__file__).parent


def compiled(t, source, library):
    if not Path("/usr/include/MQTTClient.h").exists():
        raise Skip("libpaho-mqtt-dev is not installed")
    program = t.dir / source
    result = t.run("cc", "-O1", "-o", program, HERE / f"{source}.c", f"-l{library}", "-pthread")
    eq(result.returncode, 0, f"compiler: {result.stderr}")
    return program


@cases(protocol=[4, 5], client=["sync", "async"])
def test_paho_c(t, protocol, client):
    program = compiled(t, *{"sync": ("paho_c_upload", "paho-mqtt3c"),
                            "async": ("paho_c_async_upload", "paho-mqtt3a")}[client])
    d = t.daemon()
    for size in (0, 1, 3_000_000):
        data = some_bytes(size)
        (t.dir / "input").write_bytes(data)
        result = t.run(program, f"tcp://127.0.0.1:{d.port}", "paho-c", f"f{size}", t.dir / "input",
                       "made by C.bin", protocol)
        eq((result.returncode, result.stderr), (0, ""), "exit status, stderr")
        eq(d.export("paho-c", f"f{size}", "made by C.bin"), data, "export")
    eq(d.staged_files(), [], "staging")
