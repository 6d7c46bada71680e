"""`asjax serve`: a model as a local service over HTTP, with a page.

Exit codes: 0 after Ctrl-C or SIGTERM; 2 it could not start, one line says why.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from asjax.config import TRUST, AsjaxError, trust_named, warn

_LAST_S = 10.0  # time for answers that are under way at the end

_MORE = """then, in another terminal:
  curl --data-binary @dog.wav "http://127.0.0.1:8000/tag?top=3"
or open http://127.0.0.1:8000/ in a browser. docs/serve.md describes all answers."""


def add_arguments(parser):
    parser.epilog = f"{parser.epilog}\n\n{_MORE}"
    parser.add_argument("model", metavar="MODEL", help="model folder, finished run or .onnx file")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default 127.0.0.1: only this machine can use the service)",
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port (default 8000; 0: any free one)"
    )
    parser.add_argument(
        "--max-mb", type=int, default=64, metavar="MB", help="largest body (default 64 MB)"
    )
    parser.add_argument(
        "--max-minutes",
        type=float,
        default=60.0,
        metavar="MIN",
        help="longest recording (default 60 minutes)",
    )
    parser.add_argument("--trust", **TRUST)


def main(args) -> int:
    if not 0 <= args.port <= 65_535:
        raise AsjaxError(f"--port must be from 0 to 65535, got {args.port}")
    if not 1 <= args.max_mb <= 4096:
        raise AsjaxError(f"--max-mb must be from 1 to 4096, got {args.max_mb}")
    if not 0 < args.max_minutes <= 100_000:
        raise AsjaxError(f"--max-minutes must be above 0, got {args.max_minutes:g}")
    trust_named(args.trust)
    from asjax import predict
    from asjax.predict import onnx_tagger
    from asjax.serve import answers
    from asjax.serve.server import Server, loopback
    from asjax.serve.service import Service

    if not onnx_tagger.is_file(args.model):
        from asjax import devices

        devices.setup()
    tagger = predict.load(args.model)
    name = answers.title(args.model)
    service = Service(tagger, name, max_mb=args.max_mb, max_minutes=args.max_minutes)
    with Server(service, args.host, args.port) as server:
        if not loopback(args.host):
            warn(
                f"{args.host} is not only this machine: anyone who reaches the port can use the "
                "service, without a password and unencrypted"
            )
        stop = _Stop(server)
        service.warm_up()
        if not stop.asked:
            print(f"asjax serve: {name} on {server.url} (Ctrl-C ends it)", flush=True)
            server.serve_forever()
    if not server.wait(_LAST_S):
        # A thread still computes, and the interpreter must not be taken down around it.
        server.log("stopped; an answer that was under way is lost")
        sys.stdout.flush()
        os._exit(0)
    server.log(f"{stop.asked}: stopped")
    return 0


class _Stop:
    """Ctrl-C and SIGTERM end `serve_forever`; `asked` is then the name of the signal."""

    def __init__(self, server):
        self.server, self.asked = server, ""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number, frame):
        if self.asked:  # a second signal does not wait for answers
            os._exit(0)
        self.asked = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        # `shutdown` waits for the loop of this very thread, so another thread calls it.
        threading.Thread(target=self.server.shutdown, daemon=True).start()
