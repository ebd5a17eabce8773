"""A member of flowkeeper that answers as a test wants it to."""

import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def finding(check="serving", server="zk1:2181", verdict="ok", value=None, meaning="It is so.", remedy=None, **more):
    return {
        "check": check,
        "server": server,
        "verdict": verdict,
        "value": value,
        "unit": more.pop("unit", None),
        "threshold": more.pop("threshold", None),
        "meaning": meaning,
        "remedy": remedy,
        **more,
    }


def report(*findings, verdict="ok", ensemble="home"):
    return {"ensemble": ensemble, "verdict": verdict, "checks": list(findings), "inspected_at": "2026-11-22T00:00:00Z"}


class Stub:
    """Serves until its `with` ends. `answer` is a body, (status, body), bytes, or a function of the
    handler that writes by itself; `requests` has what came: (method, path, headers, body)."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                stub.requests.append((self.command, self.path, dict(self.headers), body))
                answer = stub.answer(self) if callable(stub.answer) else stub.answer
                if answer is None:
                    return
                status, body = answer if isinstance(answer, tuple) else (200, answer)
                if not isinstance(body, bytes):
                    body = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def silent(_handler):
    time.sleep(3)


def reset(handler):
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def trickle(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        pass


def cut_short(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"ensemble": ')


def flood(handler):
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        pass


def redirect_to(url):
    def answer(handler):
        handler.send_response(307)
        handler.send_header("Location", url + handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def nobody():
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
