"""The HTTP of the service, by the standard library: a thread per connection, few of them at once.

A page of another site cannot use the service. A request must come from the service's own page or
from a program without a page (`Origin`). If the service listens on the loopback address, the
request must also name that address (`Host`): a name of another site that was pointed at this
machine (DNS rebinding) is refused.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from asjax import __version__
from asjax.config import AsjaxError, in_words, printable, shown
from asjax.serve import body
from asjax.serve.body import Refused
from asjax.serve.service import KINDS, QUERY, Service, as_json

MOST_CONNECTIONS = 32
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def loopback(host: str) -> bool:
    """Whether an address or name means this machine only."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


class Server(ThreadingHTTPServer):
    """Listens on an address at once. AsjaxError: that address cannot be had."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = os.name == "posix"  # elsewhere it would share a port that is in use

    def __init__(self, service: Service, host: str, port: int):
        self.service, self.local = service, loopback(host)
        self._free = threading.Semaphore(MOST_CONNECTIONS)
        self._active, self._idle = 0, threading.Condition()
        # Decoders are silenced by redirecting descriptor 2; the log has its own copy of it.
        self._log = _copy_of_stderr()
        self._log_lock = threading.Lock()
        where = f"{shown(host)} port {port}"
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family, address = found[0][0], found[0][4]
            super().__init__(address[:2], _Handler)
        except (OSError, UnicodeError, OverflowError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                raise AsjaxError(
                    f"{where} is in use by another program; give another --port, or --port 0 for "
                    "any free one"
                ) from None
            reason = getattr(error, "strerror", None) or "there is no such address"
            raise AsjaxError(f"cannot listen on {where}: {reason.lower()}") from None

    def server_bind(self):
        """Without the name of the address, for which http.server would ask the network."""
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def url(self) -> str:
        host = self.server_name
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def log(self, line: str) -> None:
        with self._log_lock, contextlib.suppress(OSError, ValueError):
            print(f"asjax serve: {printable(line)}", file=self._log, flush=True)

    def process_request(self, request, client_address):
        if not self._free.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.sendall(_BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread was started
            self._free.release()
            raise

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request, client_address):
        """A line in place of a traceback. A client that has gone is no error."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            self.log(f"error: {in_words(error)}")

    @contextlib.contextmanager
    def answering(self):
        """Counts the requests that are being answered, for `wait`."""
        with self._idle:
            self._active += 1
        try:
            yield
        finally:
            with self._idle:
                self._active -= 1
                self._idle.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until no request is being answered. False: one still is."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._active, seconds)


def _copy_of_stderr():
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", errors="replace")
    except (OSError, ValueError, AttributeError):  # a test or a notebook has replaced it
        return sys.stderr


_BUSY_BODY = as_json({"error": "the service is busy; try again in a few seconds"})
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_BUSY_BODY), _BUSY_BODY)
)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"asjax/{__version__}", ""

    def setup(self):
        super().setup()
        self.timed = body.Timed(self.connection)
        self.rfile = io.BufferedReader(self.timed, 1 << 16)

    def handle_one_request(self):
        self.timed.allow(body.HEAD_S)
        self.began, self.taken, self.unread = time.monotonic(), 0, True
        super().handle_one_request()

    def handle_expect_100(self):
        """Refuse a body before it is sent, if its headers suffice for that."""
        return self._guarded(self._check_body) and super().handle_expect_100()

    def do_GET(self):
        self._guarded(self._get)

    do_HEAD = do_GET

    def do_POST(self):
        self._guarded(self._post)

    def _refuse(self):
        self._guarded(lambda: self._route("GET"))

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    # ------------------------------------------------------------------------------ requests

    def _guarded(self, work) -> bool:
        """Run a part of an answer. Any error becomes an answer in one line; False after it."""
        try:
            work()
            return True
        except Refused as error:
            self._fail(error)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            if os.environ.get("ASJAX_DEBUG", "0") not in ("", "0"):
                import traceback

                traceback.print_exc()
            self.server.log(f"error: {in_words(error)}; ASJAX_DEBUG=1 shows where")
            self._fail(Refused(500, "an error inside asjax; the log of the service names it"))
        return False

    def _route(self, method: str) -> tuple[str, dict]:
        """(path, query) of a request that may come in. Refused: 403, 404, 405 or 422."""
        if method == "GET" and {"content-length", "transfer-encoding"} & set(
            map(str.lower, self.headers.keys())
        ):
            self.close_connection = True  # a body that nobody reads is not the next request
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if self.server.local and not loopback(_split(f"//{host}").hostname or ""):
            raise Refused(403, "the service answers on this machine only; call it as localhost")
        if origin is not None and _split(origin).netloc.lower() != host.lower():
            raise Refused(403, "pages of other sites cannot use this service")
        parts = _split(self.path)
        known = self.server.service.paths
        if parts.path not in known:
            raise Refused(404, f"there is no {shown(parts.path, 60)}; see {', '.join(_SHOWN)}")
        allowed = known[parts.path][0]
        if method != allowed or self.command not in ("GET", "HEAD", "POST"):
            allow = "GET, HEAD" if allowed == "GET" else allowed
            raise Refused(405, f"{parts.path} takes {allow}, not {self.command}", Allow=allow)
        return parts.path, _query(parts.query) if method == "POST" else {}

    def _get(self):
        path, _ = self._route("GET")
        make = self.server.service.paths[path][1]
        if make is not None:
            return self._send(200, as_json(make()), "application/json")
        file = self.server.service.files[path]
        self._send(200, file.read_bytes(), KINDS.get(file.suffix, "application/octet-stream"))

    def _check_body(self):
        if self.command == "POST":
            path, _ = self._route("POST")
            self.server.service.check_kind(path, self.headers)
            body.length(self.headers, self.server.service.max_bytes)

    def _post(self):
        service = self.server.service
        path, query = self._route("POST")
        service.check_kind(path, self.headers)
        with body.receive(self.rfile, self.timed, self.headers, service.max_bytes) as file:
            self.taken, self.unread = os.fstat(file.fileno()).st_size, False
            file.name = printable(query.get("name", ""))[-120:] or "the recording"
            with self.server.answering():
                self._send(200, as_json(service.answer(path, query, file)), "application/json")

    # ------------------------------------------------------------------------------- answers

    def _send(self, status: int, content: bytes, kind: str, headers=()):
        self.send_response(status)
        for name, value in {**HEADERS, **dict(headers)}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.connection.settimeout(body.IDLE_S)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _fail(self, error: Refused):
        """An error as JSON. The connection ends if the body of the request was not read."""
        unread = self.unread and self.command != "GET"
        self.close_connection |= unread
        try:
            line = printable(error.line)
            self._send(error.status, as_json({"error": line}), "application/json", error.headers)
            if unread:
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_WR)
                body.drain(self.rfile, self.timed)
        except (OSError, ValueError):
            pass  # the client has gone

    def send_error(self, code, message=None, explain=None):
        """Errors of http.server itself, such as a request that is no HTTP, in the same form."""
        self.command = getattr(self, "command", None)
        self.requestline, self.close_connection = getattr(self, "requestline", ""), True
        line = message or HTTPStatus(code).phrase
        self._fail(Refused(int(code), str(line)[:200]))

    def log_request(self, code="-", size="-"):
        status = int(code) if not isinstance(code, str) else code
        path = shown(getattr(self, "path", "").partition("?")[0], 60)
        sent = f", {self.taken / 1e6:.2f} MB" if self.taken else ""
        took = time.monotonic() - self.began
        self.server.log(f"{self.command or '-'} {path} {status} ({took:.2f} s{sent})")

    def log_message(self, format, *args):
        """The only other messages are errors and time-outs, which have been answered."""


def _split(address: str):
    """The parts of an address. Refused: 400, it is none."""
    try:
        return urlsplit(address)  # it raises for a wrong IPv6 address
    except ValueError:
        raise Refused(400, "the address of the request is not valid") from None


def _query(text: str) -> dict[str, str]:
    """name -> value. Refused: 422, a name that has no meaning or is there twice."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise Refused(422, "the address has more than 20 values after the ?") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refused(422, "a value after the ? of the address is there twice")
    for name in found:
        if name not in QUERY:
            known = ", ".join(f"?{one}=" for one in QUERY)
            raise Refused(422, f"?{shown(name, 60)}= has no meaning; there are {known}")
    return found


_SHOWN = ("/tag", "/events", "/embed", "/labels", "/healthz", "/")
