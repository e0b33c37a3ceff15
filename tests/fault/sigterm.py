#!/usr/bin/env python3
"""Stops the daemon with SIGTERM at random moments: under load, while it starts, with connections that hang.

Each end must come within mqtt.shutdown_timeout and a little, with status 0 (a signal that comes before the
daemon has asked for it ends the process like any other: then nothing was acknowledged yet). Nothing that was
acknowledged may be missing afterwards, and each file is exported once, whole.

By hand: tests/fault/sigterm.py --rounds 200 [--seed N] [--build build] [-o durability=power]
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import kill9  # noqa: E402
import powercut  # noqa: E402
from harness import yes  # noqa: E402
from rawmqtt import Client, packet, publish_packet, string  # noqa: E402

TIMEOUT_S = 2  # shutdown_timeout; what the machine needs on top is allowed for below


class Hanging:
    """Connections that a stop must not wait for: silent ones, half of a packet, one that never reads."""

    def __init__(self, daemon):
        self.clients, self.daemon = [], daemon

    def renew(self):
        for client in self.clients:
            client.close()
        self.clients = [Client(self.daemon.port, f"h{i}", timeout=20) for i in range(2)]
        silent = Client(self.daemon.port, "h2", connect=False, timeout=20)
        self.clients.append(silent)
        half = publish_packet("$file/half/0", bytes(100_000), 1, 7)
        self.clients[0].send(half[:50_000])
        self.clients[1].subscribe("flood")
        for _ in range(20):  # to itself, never read
            self.clients[1].send(publish_packet("flood", bytes(50_000)))
        self.clients.append(Client(self.daemon.port, "h3", connect=False, timeout=20))
        self.clients[-1].send(packet(1, 0, string("MQTT"))[:4])


def stop_while_starting(daemon, rng):
    """Its status: 0, or that of a signal that came before it was waited for."""
    process = subprocess.Popen(daemon.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    time.sleep(rng.choice([0.001, 0.01, 0.05, 0.2]) * rng.random())
    process.send_signal(signal.SIGTERM)
    status = process.wait(20 * daemon.context.slow)
    yes(status in (0, -signal.SIGTERM), f"status {status} of a start that was stopped")
    return status


def run(context, rounds, seed=1, *options):
    """Raises on any violation; returns a line that says what was done."""
    rng, machine = random.Random(seed), powercut.Machine()
    daemon = context.daemon("io.journal_size=1MiB", f"mqtt.shutdown_timeout={TIMEOUT_S}s", *options)
    hanging = Hanging(daemon)
    uploaders = [powercut.Uploader(machine, True, daemon, f"s{i}", seed * 1000 + i, context.slow)
                 for i in range(4)]
    for uploader in uploaders:
        uploader.start()
    took, early = [], 0
    for at in range(rounds):
        with_hanging = at % 4 == 0
        if with_hanging:
            hanging.renew()
        time.sleep(rng.choice([0.002, 0.03, 0.3]) * rng.random() * context.slow)
        machine.is_cut = True  # what is refused from now on is no violation
        daemon.port = None  # nobody is to meet another daemon there
        began = time.monotonic()
        daemon.stop()
        took.append(time.monotonic() - began)
        yes(took[-1] < TIMEOUT_S + 5 * context.slow, f"SIGTERM took {took[-1]:.1f} s")
        if rng.random() < 0.2:
            early += stop_while_starting(daemon, rng) != 0
        machine.life += 1
        machine.is_cut = False
        daemon.start()
        kill9.raise_errors(uploaders)
    with Client(daemon.port, "h0") as client:
        client.publish("$file/half/abort")
    kill9.finish(context, daemon, uploaders)
    took.sort()
    return (f"{rounds} times SIGTERM, {sum(len(u.files) for u in uploaders)} files, "
            f"{sum(u.segments_sent for u in uploaders)} segments; it took {took[len(took) // 2]:.2f} s, "
            f"at most {took[-1]:.2f} s; {early} starts ended by the signal itself: nothing lost, nothing doubled")


if __name__ == "__main__":
    kill9.command_line("SIGTERM in a loop under load", "sigterm", 40, run)
