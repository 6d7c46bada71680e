"""The service over real connections: the answers of the tagger, and refusals in one line."""

import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import re
import socket
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import small_detector
import small_tagger
import soundfile

from asjax.config import AsjaxError
from asjax.serve import body, server
from asjax.serve.server import Server
from asjax.serve.service import PAGE, Service


def wav(wave, rate=small_tagger.RATE) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, "FLOAT", format="WAV")
    return out.getvalue()


@contextlib.contextmanager
def running(tagger, host="127.0.0.1", **limits):
    """A server of this process; `lines` is its log."""
    with Server(Service(tagger, "a model", **limits), host, 0) as one:
        one.lines = one._log = io.StringIO()
        threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield one
        finally:
            one.shutdown()
            log = one.lines.getvalue()
            assert "Traceback" not in log
            assert all(line.startswith("asjax serve: ") for line in log.splitlines())


@pytest.fixture(scope="module")
def small():
    tagger = small_tagger.tagger()
    with running(tagger, max_mb=2) as one:
        yield SimpleNamespace(server=one, tagger=tagger)


def ask(one, method, path, content=None, **headers):
    """(status, JSON or text, headers)."""
    link = http.client.HTTPConnection("127.0.0.1", one.server_port, timeout=60)
    with contextlib.closing(link):
        link.request(method, path, content, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = link.getresponse()
        text = answer.read().decode()
    is_json = answer.headers["Content-Type"] == "application/json" and text
    return answer.status, json.loads(text) if is_json else text, answer.headers


def refused(answer, status) -> str:
    """The one line of an error."""
    found, said, headers = answer
    assert found == status, said
    assert list(said) == ["error"]
    assert "\n" not in said["error"]
    assert 5 < len(said["error"]) < 400
    assert "Access-Control-Allow-Origin" not in headers
    return said["error"]


def raw(one, data: bytes, wait=60) -> bytes:
    """The whole answer to bytes that are sent as they are."""
    with socket.create_connection(("127.0.0.1", one.server_port), timeout=wait) as link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: link.recv(65_536), b""))


# --------------------------------------------------------------------------------------- answers


def test_tags_are_those_of_the_formula(small):
    wave = small_tagger.steps(0.9, 0.3, 0.05, seconds=0.5)
    wave = np.concatenate([wave, wave[:120]])
    times, p, _ = small_tagger.expected(wave)
    status, found, _ = ask(small.server, "POST", "/tag?scores=1&name=a.wav", wav(wave))
    assert status == 200
    assert found["file"] == "a.wav"
    assert found["duration_s"] == pytest.approx(len(wave) / 1000)
    assert [(w["start_s"], w["end_s"]) for w in found["windows"]] == [tuple(t) for t in times]
    np.testing.assert_allclose([w["p"] for w in found["windows"]], p, atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.array(found["logits"]))), p.mean(0), atol=1e-5)
    status, found, _ = ask(small.server, "POST", "/tag?top=2", wav(wave))
    order = np.argsort(-p.mean(0))[:2]
    assert [t["id"] for t in found["tags"]] == [small_tagger.LABELS.ids[i] for i in order]
    assert [t["label"] for t in found["tags"]] == [small_tagger.LABELS.names[i] for i in order]
    np.testing.assert_allclose([t["p"] for t in found["tags"]], p.mean(0)[order], atol=1e-5)
    assert {len(w["tags"]) for w in found["windows"]} == {2}
    assert "notes" not in found


def test_embedding_is_that_of_the_formula(small):
    wave = small_tagger.steps(0.9, 0.3)
    _, _, embeddings = small_tagger.expected(wave)
    status, found, _ = ask(small.server, "POST", "/embed", wav(wave))
    assert status == 200
    np.testing.assert_allclose(found["embedding"], embeddings.mean(0), atol=1e-5)


def test_events_are_where_the_sounds_are():
    tagger = small_detector.tagger(edge=0.0)
    with running(tagger) as one:
        wave = small_detector.sounds(5.0, (1.0, 2.0, 0.9), (3.5, 4.5, 0.3))
        status, found, _ = ask(one, "POST", "/events?top=1", wav(wave))
        assert status == 200
        dog = [(e["onset_s"], e["offset_s"]) for e in found["events"] if e["label"] == "Dog"]
        rain = [(e["onset_s"], e["offset_s"]) for e in found["events"] if e["label"] == "Rain"]
        # The median window of 4 frames is even, so it moves an offset by a frame of 0.1 s.
        np.testing.assert_allclose(dog, [(1.0, 2.0)], atol=0.11)
        np.testing.assert_allclose(rain, [(1.0, 2.0), (3.5, 4.5)], atol=0.11)
        want = tagger((wave, small_detector.RATE)).events()
        assert [e["id"] for e in found["events"]] == [e.id for e in want]
        np.testing.assert_allclose([e["p"] for e in found["events"]], [e[4] for e in want], 1e-5)
        assert len(found["windows"]) == 3
        about = ask(one, "GET", "/labels")[1]
        assert about["frames"] == 20
        assert about["threshold"] == [0.5] * 4
        assert about["median_s"] == [0.36] * 4


def test_eight_posts_at_once_are_eight_posts_one_after_the_other(small):
    waves = [small_tagger.steps(*np.linspace(0.05, 0.9, n)) for n in range(1, 9)]
    post = lambda wave: ask(small.server, "POST", "/tag?scores=1", wav(wave))[:2]  # noqa: E731
    serial = [post(wave) for wave in waves]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(post, waves)) == serial
    assert {status for status, _ in serial} == {200}
    assert len({json.dumps(found) for _, found in serial}) == 8


def test_labels_and_health(small):
    status, found, headers = ask(small.server, "GET", "/labels")
    assert status == 200
    assert found["labels"][1] == {"name": "Dishes, pots, and pans", "id": "/m/b"}
    assert (found["sample_rate"], found["clip_s"], found["frames"]) == (1000, 0.5, 0)
    assert headers["Cache-Control"] == "no-store"
    assert ask(small.server, "GET", "/labels.json")[1] == found
    assert ask(small.server, "GET", "/healthz")[1] == {"status": "ok", "model": "a model"}
    status, text, headers = ask(small.server, "HEAD", "/labels")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 100


def test_what_a_decoder_says_is_in_the_answer(small):
    """Samples that are no numbers count as silence, and that is said; an unfinished file is not
    tagged at all."""
    wave = small_tagger.steps(0.5, 0.5)
    wave[700] = np.nan
    status, found, _ = ask(small.server, "POST", "/tag?name=odd.wav", wav(wave))
    assert status == 200
    assert len(found["notes"]) == 1
    assert "odd.wav" in found["notes"][0]
    whole = wav(small_tagger.steps(0.5, 0.5))
    assert "cut.wav" in refused(
        ask(small.server, "POST", "/tag?name=cut.wav", whole[: len(whole) - 2000]), 422
    )


def test_the_page_and_all_its_files_are_sent(small):
    status, text, headers = ask(small.server, "GET", "/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert "default-src 'self'" in text
    for name in re.findall(r'(?:src|href)="([\w-]+\.\w+)"', text) + ["tap.js", "worker.js"]:
        status, found, headers = ask(small.server, "GET", f"/{name}")
        assert status == 200, name
        assert found.encode() == (PAGE / name).read_bytes()
        assert headers["Content-Type"].startswith(("text/javascript", "text/css"))
        assert headers["X-Content-Type-Options"] == "nosniff"
    every = "".join(file.read_text() for file in PAGE.iterdir())
    addresses = set(re.findall(r"\bhttps?://[^\s'\"`)]+", every))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "the page needs nothing from elsewhere"


# -------------------------------------------------------------------------------------- refusals


def test_what_is_no_audio_is_refused_in_one_line(small):
    post = lambda content, **h: ask(small.server, "POST", "/tag?name=x.wav", content, **h)  # noqa: E731
    assert "x.wav" in refused(post(os.urandom(5000)), 422)
    assert "empty" in refused(post(b""), 422)
    assert "curl --data-binary" in refused(post(b"{}", Content_Type="application/json"), 415)
    refused(post(b"--x", Content_Type="multipart/form-data; boundary=x"), 415)
    refused(post(wav(np.ones(500, "f4")), Content_Encoding="gzip"), 415)
    refused(post(wav(np.full(5000, np.nan, "f4"))), 422)
    good = post(wav(np.ones(500, "f4")), Content_Type="application/x-www-form-urlencoded")
    assert good[0] == 200, "curl --data-binary sends this type"


@pytest.mark.parametrize("top", ["0", "-1", "two", "1.5", "%D9%A3"])
def test_a_wrong_number_of_tags(small, top):
    answer = ask(small.server, "POST", f"/tag?top={top}", wav(np.ones(500, "f4")))
    assert "top" in refused(answer, 422)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("topp=3", "?topp= has no meaning; there are ?top=, ?scores=, ?name="),
        ("top=3&top=4", "twice"),
        ("top=", "top"),
        ("scores=yes", "?scores= must be 0 or 1, got 'yes'"),
        ("&".join(f"name=x{i}" for i in range(30)), "more than 20"),
    ],
)
def test_a_wrong_value_after_the_address_is_refused_and_not_ignored(small, query, why):
    answer = ask(small.server, "POST", f"/tag?{query}", wav(np.ones(500, "f4")))
    assert why in refused(answer, 422)


def test_a_model_without_frames_or_embedding(small):
    line = refused(ask(small.server, "POST", "/events", wav(np.ones(500, "f4"))), 404)
    assert "events" in line
    bare = small_tagger.tagger()
    bare.embeds = False
    with running(bare) as one:
        refused(ask(one, "POST", "/embed", wav(np.ones(500, "f4"))), 404)


def test_a_body_that_is_too_large(small):
    for size in ((2 << 20) + 1, 100_000_000):
        content = bytes(size)
        assert "2 MB" in refused(ask(small.server, "POST", "/tag", content), 413)
    chunks = (bytes(60_000) for _ in range(100))
    assert "2 MB" in refused(ask(small.server, "POST", "/tag", chunks), 413)
    head = b"POST /tag HTTP/1.1\r\nHost: localhost\r\n"
    huge = raw(small.server, head + b"Content-Length: %d\r\n\r\n" % 10**30)
    assert huge.startswith(b"HTTP/1.1 413 ")
    asked = head + b"Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n"
    assert raw(small.server, asked).startswith(b"HTTP/1.1 413 "), "refused before it is sent"


def test_chunks_give_what_one_body_gives(small):
    content = wav(small_tagger.steps(0.9, 0.3, 0.5))
    chunks = (content[i : i + 777] for i in range(0, len(content), 777))
    assert (
        ask(small.server, "POST", "/tag", chunks)[:2]
        == ask(small.server, "POST", "/tag", content)[:2]
    )


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", 411),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        (b"Content-Length: -5\r\n", 400),
        (b"Content-Length: 5000\r\n", 400),  # the body ends before
        (b"Transfer-Encoding: gzip\r\n", 501),
        (b"Transfer-Encoding: chunked\r\n", 400),
    ],
)
def test_wrong_lengths(small, head, status):
    said = raw(small.server, b"POST /tag HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\nzz\r\n")
    assert said.startswith(b"HTTP/1.1 %d " % status), said
    assert said.count(b"HTTP/1.1") == 1, "the rest of the body is no second request"
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]


def test_a_slow_body_ends(small, monkeypatch):
    monkeypatch.setattr(body, "IDLE_S", 0.2)
    with socket.create_connection(("127.0.0.1", small.server.server_port), timeout=60) as link:
        link.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        said = link.recv(65_536)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert ask(small.server, "GET", "/healthz")[0] == 200


def test_a_body_that_drips_ends(small, monkeypatch):
    """Each byte comes in time, but the whole would take for ever."""
    monkeypatch.setattr(body, "SLOWEST", 1 << 20)
    monkeypatch.setattr(body, "IDLE_S", 0.3)
    said = b""
    with socket.create_connection(("127.0.0.1", small.server.server_port), timeout=60) as link:
        link.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        link.settimeout(0.05)
        for _ in range(400):
            with contextlib.suppress(TimeoutError):
                said = link.recv(65_536)
                break
            link.sendall(b"x")
    assert said.startswith(b"HTTP/1.1 408 ")


def test_a_recording_that_is_too_long():
    with running(small_tagger.tagger(), max_minutes=0.1) as one:
        content = wav(small_tagger.steps(*[0.5] * 40))
        assert "0.1 minutes" in refused(ask(one, "POST", "/tag", content), 413)
        assert ask(one, "POST", "/tag", wav(small_tagger.steps(0.5)))[0] == 200


def test_paths_and_methods(small):
    def ask_(method, path):
        return ask(small.server, method, path, b"" if method in ("POST", "PUT") else None)

    assert "/tag" in refused(ask_("GET", "/nothing"), 404)
    for path in ("/../setup.cfg", "/page/index.html", "/%2e%2e/service.py", "/service.py"):
        refused(ask_("GET", path), 404)
    for method, path, allow in (
        ("GET", "/tag", "POST"), ("PUT", "/tag", "POST"), ("DELETE", "/labels", "GET, HEAD"),
        ("POST", "/labels", "GET, HEAD"), ("OPTIONS", "/tag", "POST"),
    ):  # fmt: skip
        answer = ask_(method, path)
        refused(answer, 405)
        assert answer[2]["Allow"] == allow
    refused(ask_("BREW", "/tag"), 501)
    assert raw(small.server, b"\x16\x03\x01\x02\x00\x01\r\n\r\n").startswith(b'{"error": "Bad ')


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "", "localhost:1@evil.example", "[::"],
)
def test_a_name_that_was_pointed_here_is_refused(small, host):
    """DNS rebinding: the browser believes that the service is a page of another site."""
    for method, path in (("GET", "/labels"), ("POST", "/tag"), ("GET", "/")):
        answer = ask(small.server, method, path, wav(np.ones(500, "f4")), Host=host)
        refused(answer, 400 if host == "[::" else 403)


def test_pages_of_other_sites_are_refused(small):
    port = small.server.server_port
    for origin in ("http://evil.example", "null", f"http://localhost:{port + 1}"):
        answer = ask(small.server, "POST", "/tag", wav(np.ones(500, "f4")), Origin=origin)
        refused(answer, 403)
    for name in ("127.0.0.1", "localhost"):
        own = {"Origin": f"http://{name}:{port}", "Host": f"{name}:{port}"}
        assert ask(small.server, "GET", "/healthz", **own)[0] == 200


def test_too_many_connections_are_told_to_wait(monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)
    with running(small_tagger.tagger()) as one, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", one.server_port)
        for _ in range(2):
            link = stack.enter_context(socket.create_connection(address, timeout=60))
            link.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert link.recv(65_536).startswith(b"HTTP/1.1 200 ")
        late = stack.enter_context(socket.create_connection(address, timeout=60))
        assert late.recv(65_536).startswith(b"HTTP/1.1 503 ")


def test_one_connection_takes_several_requests(small):
    link = http.client.HTTPConnection("127.0.0.1", small.server.server_port, timeout=60)
    with contextlib.closing(link):
        for content, status in ((wav(np.ones(500, "f4")), 200), (b"no audio", 422)) * 2:
            link.request("POST", "/tag", content)
            sock, answer = link.sock, link.getresponse()
            answer.read()
            assert answer.status == status
            assert link.sock is sock, "it was not closed"


def test_an_error_inside_is_one_line_in_the_answer_and_in_the_log():
    tagger = small_tagger.tagger()
    with running(tagger) as one:

        def broken(*args, **more):
            raise ZeroDivisionError("a\nfault")

        tagger.stream = broken
        line = refused(ask(one, "POST", "/tag?name=%0Aevil", wav(np.ones(500, "f4"))), 500)
        assert "ZeroDivisionError" not in line
        assert "error: ZeroDivisionError: a fault" in one.lines.getvalue()
        refused(ask(one, "GET", "/%1b%0Ax"), 404)


def test_a_client_that_goes_leaves_no_trace():
    with running(small_tagger.tagger()) as one:
        for sent in (
            b"",
            b"POST /tag HT",
            b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
        ):
            link = socket.create_connection(("127.0.0.1", one.server_port), timeout=60)
            link.sendall(sent)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
            link.close()
        assert ask(one, "GET", "/healthz")[0] == 200


def test_a_port_in_use_is_one_line():
    with running(small_tagger.tagger()) as one:
        place = ("127.0.0.1", one.server_port)
        with pytest.raises(AsjaxError, match=f"port {one.server_port} is in use"):
            Server(one.service, *place)
    with pytest.raises(AsjaxError, match="cannot listen on"):
        Server(one.service, "no.such.host.invalid", 0)


def test_only_loopback_checks_the_name(small):
    for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST."):
        assert server.loopback(host)
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", "", "localhost.example.org"):
        assert not server.loopback(host)
    with running(small.tagger, host="0.0.0.0") as one:
        assert ask(one, "GET", "/healthz", Host="my-machine:80")[0] == 200
