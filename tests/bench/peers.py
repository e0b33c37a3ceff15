"""Other servers under the same bytes: 64 × 16 MiB over 16 connections, and nothing else changed."""

import os
import shutil
import time

from bars import daemon_cpu, pick
from lab import Daemon, Figure, Server
from servers import Mosquitto, Nginx, cpu_seconds, free_port, program

TOTAL_BYTES = 1 << 30
LOAD = ("--connections", 16, "--files", 64, "--size", "16M")
SEGMENTS = ("--segment", "256K", "--window", 20)


def figures(found, cpu_key):
    return [Figure("CPU", pick(found, cpu_key), unit="CPU s/GB"),
            Figure("rate", pick(found, "mb_per_s"), unit="MB/s")]


def sluiced(lab):
    """sluiced, 256 KiB segments, checksum at fin, fsync"""
    volume = lab.volume()
    daemon = Daemon(lab, volume)
    try:
        found = lab.rounds(volume, {"": lambda: daemon.ingest("--checksum", "fin", *LOAD, *SEGMENTS)})
    finally:
        daemon.close()
    return [Figure("CPU", daemon_cpu(found[""]), unit="CPU s/GB"),
            Figure("rate", pick(found[""], "mb_per_s"), unit="MB/s")]


def splice_floor(lab):
    """floor: splice to files, fsync"""
    volume = lab.volume()
    found = lab.rounds(volume, {"": lambda: lab.floor(volume, "splice", *LOAD, *SEGMENTS)})
    return figures(found[""], "cpu_seconds_per_gb")


def mosquitto(lab):
    """mosquitto, 256 KiB QoS 1 messages, no subscriber, nothing written"""
    volume, broker = lab.volume(), Mosquitto(lab)
    try:
        found = lab.rounds(volume, {"": lambda: broker.publish(*LOAD, *SEGMENTS)})
    finally:
        broker.close()
    return figures(found[""], "daemon_cpu_seconds_per_gb")


def mosquitto_file(lab):
    """mosquitto with a subscriber that writes one file, CPU of both, no fsync"""
    volume, broker = lab.volume(), Mosquitto(lab)
    path = volume.subdir("subscriber") / "file"

    def one():
        with open(path, "wb") as out:
            subscriber = Server([program("mosquitto_sub"), "-V", "mqttv5", "-p", broker.port, "-t",
                                 "sluice/bench", "-q", "1", "-N"], lab.work / "sub.log", stdout=out)
        try:
            time.sleep(0.3)
            before, began = cpu_seconds(subscriber.pid) + cpu_seconds(broker.pid), time.monotonic()
            broker.publish(*LOAD, *SEGMENTS)
            while path.stat().st_size < TOTAL_BYTES and time.monotonic() < began + 120:
                time.sleep(0.01)
            seconds = time.monotonic() - began
            cpu = cpu_seconds(subscriber.pid) + cpu_seconds(broker.pid) - before
        finally:
            subscriber.close()
        if path.stat().st_size != TOTAL_BYTES:
            raise RuntimeError(f"the subscriber got {path.stat().st_size} of {TOTAL_BYTES} bytes")
        return {"cpu": cpu / (TOTAL_BYTES / 1e9), "mb_per_s": TOTAL_BYTES / 1e6 / seconds}
    try:
        found = lab.rounds(volume, {"": one})
    finally:
        broker.close()
        shutil.rmtree(path.parent)
    return figures(found[""], "cpu")


def nginx_put(lab):
    """nginx, WebDAV PUT of whole files, no fsync"""
    volume = lab.volume()
    server = Nginx(lab, volume)
    try:
        found = lab.rounds(volume, {"": lambda: server.put(*LOAD)})
    finally:
        server.close()
    return figures(found[""], "server_cpu_seconds_per_gb")


def received(lab, command):
    """Rounds of a program that takes one connection, writes it to a file, and ends."""
    volume = lab.volume()
    folder = volume.subdir("received")

    def one():
        port, path = free_port(), folder / "file"
        server = Server(command(port, path), lab.work / "received.log")
        try:
            time.sleep(0.3)  # a probe would be taken for its one connection
            report = lab.tool("put", "--raw", "--port", port, "--connections", 1, "--size",
                              TOTAL_BYTES)
            _, status, used = os.wait4(server.pid, 0)
            server.process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            server.close()
        if path.stat().st_size != TOTAL_BYTES:
            raise RuntimeError(f"{path.stat().st_size} of {TOTAL_BYTES} bytes are there")
        path.unlink()
        return {"cpu": (used.ru_utime + used.ru_stime) / (TOTAL_BYTES / 1e9),
                "mb_per_s": report["mb_per_s"]}
    try:
        return figures(lab.rounds(volume, {"": one})[""], "cpu")
    finally:
        shutil.rmtree(folder)


def socat(lab):
    """socat to a file, one connection, 1 GiB, no fsync"""
    found = program("socat")
    return received(lab, lambda port, path: [
        found, "-u", "-b", "262144", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr",
        f"CREATE:{path}"])


def netcat(lab):
    """nc to a file, one connection, 1 GiB, no fsync"""
    found = program("nc")
    # nc.traditional wants -p for the port, the others do not take it.
    port_option = "-p " if "traditional" in os.path.realpath(found) else ""
    return received(lab, lambda port, path: [
        "sh", "-c", f"exec {found} -l {port_option}{port} </dev/null >{path}"])


CASES = {"peer-sluiced": sluiced, "peer-floor": splice_floor, "peer-mosquitto": mosquitto,
         "peer-mosquitto-file": mosquitto_file, "peer-nginx": nginx_put, "peer-socat": socat,
         "peer-nc": netcat}
