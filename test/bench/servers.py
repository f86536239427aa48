"""The servers that rows measure. Each listens on a free loopback port, keeps its files in a temporary folder, and is
ended by process id when its `with` block ends, however it ends."""

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
START_S_MAX, END_S_MAX = 30, 20
KEY_CONNECTIONS = 32


class BenchError(Exception):
    """Something that the person who runs the bench must know; no traceback needed."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, condition, seconds=START_S_MAX):
    """Calls condition until it gives something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise BenchError("%s: not within %d s" % (what, seconds))
        time.sleep(0.02)


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def process_tree(root):
    """{pid: name} of a process and all its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open("/proc/%s/stat" % entry, encoding="utf-8") as file:
                text = file.read()
                name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
                if rest[0] != "Z":
                    parents[int(entry)] = (int(rest[1]), name)
    tree, last = {}, {root}
    while last:
        tree.update((pid, parents[pid][1]) for pid in last if pid in parents)
        last = {pid for pid, (parent, _) in parents.items() if parent in last}
    return tree


def command_line(pid):
    with contextlib.suppress(OSError), open("/proc/%d/cmdline" % pid, "rb") as file:
        return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return ""


LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def end_with_parent():
    """In the child: asked to end when the bench dies, however that dies."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Server:
    """A program to start, its folder and its port. Used as a context; `begin` starts it and waits until it serves."""

    def __init__(self, name):
        self.name, self.port, self.process, self.folder = name, 0, None, ""

    def begin(self):
        raise NotImplementedError

    def __enter__(self):
        self.folder, self.port = tempfile.mkdtemp(prefix="bulkhead-bench-"), free_port()
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self):
        return os.path.join(self.folder, "stderr")

    def file(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def start(self, command):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=TREE,
                                            preexec_fn=end_with_parent)

    def check_alive(self):
        if self.process.poll() is not None:
            raise BenchError("%s ended with status %d:\n%s" % (self.name, self.process.returncode, self.log_tail()))
        return True

    def log_tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-20:])

    def processes(self):
        """{pid: what it does} of everything that works for this server."""
        self.check_alive()
        return {pid: self.role_of(pid, name) for pid, name in process_tree(self.process.pid).items()}

    def role_of(self, pid, name):
        return name

    def post(self, path, headers, body):
        """(status, headers, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_S_MAX)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        pids = process_tree(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S_MAX)
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


# --- nginx ---------------------------------------------------------------------------------------------------------

# Both instances: no logs, connections that are never closed, bodies and heads that fit their first buffer.
NGINX = """
user root;
daemon off;
worker_processes %(workers)d;
worker_rlimit_nofile 8192;
error_log %(folder)s/error.log crit;
pid %(folder)s/pid;
events { worker_connections 2048; }
http {
    access_log off;
    server_tokens off;
    default_type application/octet-stream;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_header_buffer_size 4k;
    client_body_buffer_size 16k;
    client_body_temp_path %(folder)s/body;
    proxy_temp_path %(folder)s/proxy;
    fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi;
    scgi_temp_path %(folder)s/scgi;
%(http)s
}
"""

NGINX_STATIC = """
    server {
        listen 127.0.0.1:%(port)d backlog=1024%(listen)s;
        location / {
            add_header Inference-Header-Content-Length %(json_bytes)d;
            return 200 '%(body)s';
        }
    }
"""

# What Bulkhead's gateway does, said in nginx's words: key -> tenant, 401 without one, a limit per tenant, and on.
NGINX_FRONT = """
    map_hash_max_size 262144;
    map_hash_bucket_size 256;
    map $http_x_api_key $tenant {
        default '';
        include %(folder)s/keys.map;
    }
    limit_req_zone $tenant zone=tenants:10m rate=%(rate)dr/s;
    limit_req_status 429;
    upstream models {
        server 127.0.0.1:%(upstream)d;
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }
    server {
        listen 127.0.0.1:%(port)d backlog=1024%(listen)s;
        location / {
            if ($tenant = '') { return 401; }
            limit_req zone=tenants burst=%(burst)d%(nodelay)s;
            proxy_pass http://models;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_set_header X-API-Key '%(key)s';
            proxy_set_header X-Tenant $tenant;
            proxy_buffer_size 8k;
            proxy_connect_timeout 10s;
        }
    }
"""


class Nginx(Server):
    """One instance; `http` is its http block, `values` what that names beside port, folder and listen."""

    def __init__(self, name, workers, http, **values):
        super().__init__(name)
        self.workers, self.http, self.values = workers, http, values
        # Without it one of several workers may take nearly all of the few connections that a bench opens.
        self.values["listen"] = " reuseport" if workers > 1 else ""

    def begin(self):
        self.values.update(folder=self.folder, port=self.port)
        text = NGINX % {"workers": self.workers, "folder": self.folder, "http": (self.http % self.values).strip("\n")}
        self.start([nginx_program(), "-p", self.folder, "-c", self.file("nginx.conf", text)])
        wait_for(self.name, lambda: self.check_alive() and accepts(self.port))

    def role_of(self, pid, name):
        return "%s %s" % (self.name, "master" if pid == self.process.pid else "worker")


class NginxFront(Nginx):
    """Key map, limit_req and proxy_pass to `static`. The limit is looked at for each request and refuses none."""

    def __init__(self, static, keys, tenant, workers=1):
        super().__init__("nginx", workers, NGINX_FRONT, rate=16000000, burst=1000000, nodelay=" nodelay", key="")
        self.static, self.tenants = static, dict.fromkeys(keys, tenant)

    def begin(self):
        self.file("keys.map", "".join("%s %s;\n" % pair for pair in self.tenants.items()))
        self.values["upstream"] = self.static.port
        super().begin()

    def processes(self):
        return {**super().processes(), **self.static.processes()}


class NginxLimits(NginxFront):
    """limit_req in its plain form in front of `server`: so many requests a second of each tenant go on, and those that come
    sooner wait in nginx. tenants: {key: tenant}; the server is shown the same key."""

    def __init__(self, server, tenants, rate, burst):
        super().__init__(server, (), "")
        self.tenants = tenants
        self.values.update(rate=rate, burst=burst, nodelay="", key="$http_x_api_key")


def nginx_program():
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if not program:
        raise BenchError("nginx is not installed: tools/deps install --bench")
    return program


class NginxStatic(Nginx):
    """Answers every request with `body` (printable text, nothing that nginx's configuration would interpret)."""

    def __init__(self, body, json_bytes, workers=1):
        text = body.decode("ascii")
        if any(character in text for character in "'\\$"):
            raise BenchError("this answer cannot stand in nginx's configuration")
        super().__init__("static nginx", workers, NGINX_STATIC, body=text, json_bytes=json_bytes)


# --- Bulkhead ------------------------------------------------------------------------------------------------------

class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=START_S_MAX)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def call(self, method, path, body=None):
        """The answer's JSON; raises on any status but 200 and 202 (committed, but not yet taken by the gateway)."""
        self.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        answer = self.getresponse()
        text = answer.read()
        if answer.status not in (200, 202):
            raise BenchError("%s %s: %d %s" % (method, path, answer.status, text.decode("utf-8", "replace")))
        return json.loads(text)


class Bulkhead(Server):
    """`bulkhead serve` with a fresh data folder, and resources applied to it."""

    SERVER = """apiVersion: bulkhead.dev/v1alpha1
kind: Server
metadata: {name: bench}
spec:
  log: {level: warn}
"""

    def __init__(self, resources, sources, server="", arguments=()):
        """sources: files of the tree that resources name, by path or as (name, bytes); server: more lines of the
        Server's spec; arguments: more of `bulkhead serve`."""
        super().__init__("bulkhead")
        self.program = os.path.join(TREE, "build", "bulkhead")
        self.resources, self.sources, self.server, self.arguments = resources, sources, server, arguments

    @property
    def admin(self):
        return os.path.join(self.folder, "data", "admin.sock")

    def begin(self):
        if not os.access(self.program, os.X_OK):
            raise BenchError("build/bulkhead is not there: make build")
        self.start([self.program, "serve", "--data", os.path.dirname(self.admin), "--listen",
                    "127.0.0.1:%d" % self.port, "--config", self.file("server.yaml", self.SERVER + self.server),
                    *self.arguments])
        wait_for("bulkhead's admin socket", lambda: self.check_alive() and self.admin_answers())
        for source in self.sources:
            if isinstance(source, tuple):
                with open(os.path.join(self.folder, source[0]), "wb") as file:
                    file.write(source[1])
            else:
                shutil.copy(os.path.join(TREE, source), self.folder)
        self.command("apply", "-f", self.file("resources.yaml", self.resources))

    def command(self, *words):
        done = subprocess.run([self.program, *words, "--admin", self.admin], capture_output=True, text=True, cwd=TREE,
                              timeout=60, check=False)
        if done.returncode != 0:
            raise BenchError("bulkhead %s: %s%s\n%s" % (" ".join(words), done.stdout, done.stderr, self.log_tail()))
        return done.stdout

    def admin_answers(self):
        try:
            UnixConnection(self.admin).call("GET", "/v1alpha1/status")
            return True
        except OSError:
            return False

    def metrics_text(self):
        connection = UnixConnection(self.admin)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def role_of(self, pid, name):
        if pid == self.process.pid:
            return "bulkhead supervisor"
        line = command_line(pid)
        for role in ("gateway", "control", "worker"):
            if role in name or role in line:
                return "bulkhead " + role
        return "bulkhead " + name

    def make_keys(self, tenant, count):
        """`count` API keys of `tenant`, over several connections to the admin API; the newest last: once that one works,
        all do."""
        def some(share):
            connection = UnixConnection(self.admin)
            made = [connection.call("POST", "/v1alpha1/keys", {"tenant": tenant, "name": "bench"}) for _ in range(share)]
            connection.close()
            return made
        shares = [count // KEY_CONNECTIONS + (i < count % KEY_CONNECTIONS) for i in range(KEY_CONNECTIONS)]
        with ThreadPoolExecutor(KEY_CONNECTIONS) as pool:
            made = [answer for answers in pool.map(some, shares) for answer in answers]
        return [answer["key"] for answer in sorted(made, key=lambda answer: answer["generation"])]
