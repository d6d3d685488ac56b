"""Programs inside reach the gateway at 127.0.0.1:8020 with any HTTP client, and nothing else."""

import asyncio
import contextlib
import json
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from controlplane.clusters.types import DriverError, ExitReason, Resources

pytestmark = pytest.mark.sandbox

CLIENT = """
import json, urllib.request, urllib.error
def get(url, data=None):
    try:
        with urllib.request.urlopen(url, data, timeout=5) as answer:
            return [answer.status, answer.read().decode()[:200]]
    except urllib.error.HTTPError as error:
        return [error.code, ""]
    except OSError as error:
        return [0, str(error)]
"""


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(f"hello from {self.server.words} at {self.path}".encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(f"{len(body)} {sum(body)}".encode())

    def reply(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        return

    def address_string(self):
        return "unix"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("unix", 0)


@contextlib.contextmanager
def gateway(path, words="gateway"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with Server(str(path), Answer) as server:
        server.words = words
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
    path.unlink(missing_ok=True)


def test_unmodified_client_reaches_the_gateway_and_nothing_else(node, name):
    with socket.create_server(("127.0.0.1", 0)) as other, gateway(node.gateway_socket):
        port = other.getsockname()[1]
        script = CLIENT + (
            "print(json.dumps([get('http://127.0.0.1:8020/mcp'), get('http://localhost:8020/llm/v1'), "
            f"get('http://127.0.0.1:{port}/'), get('http://1.1.1.1/'), get('http://example.com/')]))"
        )
        node.python(name, script, gateway=True)
        node.wait(name)
    mcp, llm, *others = json.loads(node.output(name))
    assert mcp == [200, "hello from gateway at /mcp"]
    assert llm == [200, "hello from gateway at /llm/v1"]
    assert [status for status, _ in others] == [0, 0, 0]


def test_without_the_gateway_nothing_listens(node, name):
    with gateway(node.gateway_socket):
        node.python(name, CLIENT + "print(get('http://127.0.0.1:8020/')[0])", gateway=False)
        node.wait(name)
    assert node.output(name).strip() == "0"


def test_gateway_that_starts_again_is_found_again_and_its_absence_is_503(node, name):
    script = (
        CLIENT
        + """
import sys, time
for line in sys.stdin:
    print(get("http://127.0.0.1:8020/"), file=sys.stderr, flush=True)
"""
    )
    node.python(name, script, gateway=True, stdio=True)
    node.running(name)
    with gateway(node.gateway_socket, "the first"):
        ask(node, name)
        node.until_output(name, "the first")
    ask(node, name)
    node.until_output(name, "503")
    with gateway(node.gateway_socket, "the second"):
        ask(node, name)
        node.until_output(name, "the second")


def test_many_parallel_connections_each_get_their_answer(node, name):
    script = (
        CLIENT
        + """
from concurrent.futures import ThreadPoolExecutor
def one(number):
    body = bytes([number % 256]) * (number * 1000)
    return get("http://127.0.0.1:8020/", body)[1] == f"{len(body)} {sum(body)}"
with ThreadPoolExecutor(40) as pool:
    print(sum(pool.map(one, range(1, 201))))
"""
    )
    with gateway(node.gateway_socket):
        node.python(name, script, gateway=True)
        status = node.wait(name, seconds=60)
    assert (status.exit_reason, node.output(name).strip()) == (ExitReason.COMPLETED, "200")


def test_half_closed_connection_still_carries_the_answer(node, name):
    path = node.gateway_socket
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    script = """
import socket
with socket.create_connection(("127.0.0.1", 8020)) as connection:
    connection.sendall(b"q" * 300_000)
    connection.shutdown(socket.SHUT_WR)
    answer = b""
    while data := connection.recv(65536):
        answer += data
print(len(answer))
"""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20)
        node.python(name, script, gateway=True)
        connection, _ = listener.accept()
        with connection:
            received = 0
            while data := connection.recv(65536):
                received += len(data)
            connection.sendall(b"a" * 500_000)
        node.wait(name)
    path.unlink()
    assert received == 300_000
    assert node.output(name).strip() == "500000"


def test_exhausted_descriptors_of_the_forwarder_do_not_end_it(node, name):
    script = """
import resource, socket, time, urllib.request
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
held = []
for _ in range(600):  # each costs the forwarder two of its 1024 descriptors; the rest waits in the backlog
    held.append(socket.create_connection(("127.0.0.1", 8020), timeout=20))
print(len(held))
for connection in held:
    connection.close()
time.sleep(0.3)
print(urllib.request.urlopen("http://127.0.0.1:8020/after", timeout=10).status)
"""
    with gateway(node.gateway_socket):
        node.python(name, script, gateway=True, resources=Resources(cpu_millicores=1000))
        node.wait(name, seconds=60)
    assert node.output(name).split() == ["600", "200"]


def test_other_files_in_the_gateways_folder_stop_the_start(node, name):
    node.gateway_socket.parent.mkdir(exist_ok=True)
    stray = Path(node.gateway_socket.parent, "notes.txt")
    stray.write_text("not for sandboxes")
    try:
        with pytest.raises(DriverError, match=r"found notes\.txt"):
            node.python(name, "pass", gateway=True)
    finally:
        stray.unlink()


def test_termination_signal_is_passed_on_and_zombies_are_reaped(node, name):
    script = """
import os, signal, subprocess, sys, time
if os.fork() == 0:
    for _ in range(20):
        if os.fork() == 0:
            os._exit(0)
    os._exit(0)
os.wait()
time.sleep(0.5)
states = [open(f"/proc/{pid}/stat").read().split()[2] for pid in os.listdir("/proc") if pid.isdigit()]
print("zombies", states.count("Z"), flush=True)
def leave(number, frame):
    print("told", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, leave)
os.kill(1, signal.SIGTERM)
time.sleep(30)
"""
    node.python(name, script, gateway=True)
    status = node.wait(name)
    assert node.output(name).split() == ["zombies", "0", "told"]
    assert status.exit_code == 3


def ask(node, name):
    async def line():
        while True:
            try:
                _, writer = await node.driver.attach(name)
                break
            except DriverError as error:
                if error.code != "sandbox.attached":
                    raise
                await asyncio.sleep(0.02)
        writer.write(b"ask\n")
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.close()
        await writer.wait_closed()

    asyncio.run(line())
