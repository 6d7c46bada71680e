"""Headless Chromium through the DevTools protocol: enough to click on a page and to look at it."""

import base64
import contextlib
import functools
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
]
GUARD_S = 120  # longest wait for anything


def program() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


def why_not() -> str:
    """Why there can be no browser test here, or ""."""
    try:
        import websockets  # noqa: F401
    except ImportError:
        return "websockets is not installed"
    return "" if program() else "no chromium is installed"


class Failed(AssertionError):
    pass


class Page:
    """A tab. It collects requests, console messages and exceptions of itself and its workers.

    Args:
      folder: for the profile and for downloads. microphone: a WAV that the fake microphone plays;
        None: it is denied.
    """

    def __init__(self, folder: Path, microphone: Path | None = None):
        from websockets.sync.client import connect

        profile, self.downloads = folder / "profile", folder / "downloads"
        self.downloads.mkdir(parents=True, exist_ok=True)
        flags = [*_FLAGS, f"--user-data-dir={profile}"]
        if microphone is not None:
            flags += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
            flags += [f"--use-file-for-fake-audio-capture={microphone}"]
        else:
            flags += ["--use-fake-device-for-media-stream", "--deny-permission-prompts"]
        self.process = subprocess.Popen(
            [program(), *flags, "about:blank"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._stack = contextlib.ExitStack()
        self.requests, self.console, self._count, self._answers = [], [], 0, {}
        try:
            port = self._port(profile / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as found:
                tab = next(t for t in json.load(found) if t["type"] == "page")
            link = connect(tab["webSocketDebuggerUrl"], max_size=None)
            self._socket = self._stack.enter_context(link)
            self._watch(None)
            self.send("Page.enable")
            self.send(
                "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads)
            )
        except BaseException:
            self.close()
            raise

    def _port(self, file: Path) -> int:
        end = time.monotonic() + GUARD_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                lines = file.read_text().split()
                if lines:
                    return int(lines[0])
            time.sleep(0.1)
        raise Failed("chromium did not start")

    def _watch(self, session):
        for method in ("Network.enable", "Runtime.enable", "Log.enable"):
            self._post(method, session)
        self._post(
            "Target.setAutoAttach", session, autoAttach=True, waitForDebuggerOnStart=False,
            flatten=True,
        )  # fmt: skip

    def close(self):
        with contextlib.suppress(Exception):
            self._stack.close()
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, 9)
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --------------------------------------------------------------------------- the protocol

    def _post(self, method, session=None, **params) -> int:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        return self._count

    def send(self, method, **params):
        number = self._post(method) if not params else self._post(method, **params)
        end = time.monotonic() + GUARD_S
        while number not in self._answers:
            self._read(end - time.monotonic())
        answer = self._answers.pop(number)
        if "error" in answer:
            raise Failed(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self, timeout):
        message = json.loads(self._socket.recv(timeout=max(0.01, timeout)))
        if "id" in message:
            self._answers[message["id"]] = message
            return
        method, params = message["method"], message["params"]
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Target.attachedToTarget":
            self._watch(params["sessionId"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            self.console.append(("exception", text))
        elif method == "Runtime.consoleAPICalled":
            words = " ".join(str(a.get("value", a.get("description"))) for a in params["args"])
            self.console.append((params["type"], words))
        elif method == "Log.entryAdded":
            entry = params["entry"]
            self.console.append((entry["level"], f"{entry['text']} {entry.get('url', '')}"))

    # ------------------------------------------------------------------------------- the page

    def open(self, url):
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def js(self, expression):
        """The value of an expression, as after a click of the user."""
        done = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True,
            userGesture=True,
        )  # fmt: skip
        if "exceptionDetails" in done:
            raise Failed(f"{expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def until(self, expression, seconds=GUARD_S):
        """Wait until an expression is true; its value."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            if time.monotonic() > end:
                raise Failed(f"{expression} did not come true; console: {self.console}")
            time.sleep(0.05)
        return value

    def upload(self, selector, *paths):
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def click(self, selector, x=0.5, y=0.5):
        """A click of the mouse on an element, at a share of its width and height."""
        box = self.js(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x, b.y, b.width, b.height]; }})(document.querySelector({selector!r}))"
        )
        at = {"x": box[0] + x * box[2], "y": box[1] + y * box[3], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, **at)

    def key(self, key, code=None, number=0, text="", shift=False):
        """A key of the keyboard."""
        more = {"text": text} if text else {}
        how = {"key": key, "code": code or key, "windowsVirtualKeyCode": number}
        how["modifiers"] = 8 if shift else 0
        self.send("Input.dispatchKeyEvent", type="keyDown", **how, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", **how)

    def download(self, selector) -> str:
        """The text of the file that a click on an element saves."""
        for old in self.downloads.iterdir():
            old.unlink()
        self.click(selector)
        end = time.monotonic() + GUARD_S
        while time.monotonic() < end:
            for new in self.downloads.iterdir():
                if new.suffix in (".csv", ".json") and new.stat().st_size:
                    return new.read_text()
            self.js("0")
            time.sleep(0.1)
        raise Failed(f"{selector} saved no file")

    def size(self, width, height=900, scale=1, dark=False):
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, whole=True):
        done = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(done["data"]))


@contextlib.contextmanager
def site(folder: Path):
    """The address of a folder on a plain web server of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
