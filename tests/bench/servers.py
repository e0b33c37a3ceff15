"""Other servers, started on free ports with configurations of their own."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from lab import Server, Unavailable


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def program(*names):
    """Where one of these is; Debian keeps daemons where a user's PATH does not look."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return found
    raise Unavailable(f"{names[0]} is not installed")


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


class Mosquitto(Server):
    def __init__(self, lab):
        found = program("mosquitto")
        self.lab, self.port = lab, free_port()
        conf = lab.work / "mosquitto.conf"
        # Without the limits that would make it drop, or wait for, what is sent.
        conf.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
                        "set_tcp_nodelay true\nmax_inflight_messages 0\nmax_queued_messages 0\n"
                        "log_type error\n")
        super().__init__([found, "-c", conf], lab.work / "mosquitto.log")
        self.wait_for(lambda: answers(self.port))

    def publish(self, *options):
        return self.lab.tool("publish", "--port", self.port, "--pid", self.pid, "--timeout", 120,
                             *options)


class Nginx(Server):
    """One worker, WebDAV's PUT, what it receives and what it keeps on the volume."""

    MODULE = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")

    def __init__(self, lab, volume):
        found = program("nginx")
        if "http_dav_module" not in subprocess.run([found, "-V"], capture_output=True, text=True,
                                                   check=False).stderr:
            raise Unavailable("this nginx is built without WebDAV")
        self.lab, self.port, self.root = lab, free_port(), volume.subdir("nginx")
        (self.root / "up").mkdir()
        conf = lab.work / "nginx.conf"
        user = "user root;\n" if os.geteuid() == 0 else ""
        conf.write_text(
            f"{user}worker_processes 1;\ndaemon off;\npid {lab.work}/nginx.pid;\n"
            f"error_log {lab.work}/nginx-error.log;\nevents {{ worker_connections 1024; }}\n"
            f"http {{\n access_log off;\n client_max_body_size 0;\n keepalive_requests 1000000;\n"
            f" client_body_temp_path {self.root}/tmp;\n proxy_temp_path {self.root}/t1;\n"
            f" fastcgi_temp_path {self.root}/t2;\n uwsgi_temp_path {self.root}/t3;\n"
            f" scgi_temp_path {self.root}/t4;\n server {{\n  listen 127.0.0.1:{self.port};\n"
            f"  root {self.root};\n  location / {{ dav_methods PUT; }}\n }}\n}}\n")
        super().__init__([found, "-c", conf], lab.work / "nginx.log")
        self.wait_for(lambda: answers(self.port))
        children = subprocess.run(["pgrep", "-P", str(self.pid)], capture_output=True, text=True,
                                  check=True)
        self.worker = int(children.stdout.split()[0])

    def put(self, *options):
        try:
            return self.lab.tool("put", "--port", self.port, "--pid", self.worker, "--path", "/up/",
                                 *options)
        finally:
            for path in (self.root / "up").iterdir():
                path.unlink()

    def close(self):
        super().close()
        shutil.rmtree(self.root, ignore_errors=True)


def cpu_seconds(pid):
    """Of a process that still runs, its threads and its children that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")
