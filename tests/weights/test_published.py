"""The table of published checkpoints is valid, and downloads work with a bad server."""

import hashlib
import http.server
import re
import threading

import pytest

from asjax import frontends, models
from asjax.config import AsjaxError
from asjax.store import files
from asjax.weights import download, locate, published

ROWS = published.ROWS
CONTENT = bytes(range(256)) * 12_000  # 3 MB: several reads


# ------------------------------------------------------------------------------------ table


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_every_row_names_a_model_and_a_frontend_that_are_here(row):
    file = models.family(row.family)
    module = file.model(row.variant, **row.fields)
    frontend = frontends.build(**(row.frontend or file.FRONTENDS[row.variant]))
    assert frontend.n_mels == module.n_mels
    assert row.urls or row.hub or row.page.startswith("https://")
    assert bool(row.urls or row.page) == bool(row.file)
    assert all(url.startswith("https://") for url in row.urls)
    assert re.fullmatch(r"[0-9a-f]{64}", row.sha256 or "0" * 64)
    assert re.fullmatch(r"[0-9a-f]{32}", row.md5 or "0" * 32)
    assert row.score == "-" or re.search(r"\.\d+$", row.score)


def test_names_files_and_hub_ids_are_there_once():
    for field in ("name", "file", "hub"):
        values = [getattr(row, field) for row in (*ROWS, *published.STARTS)]
        values = [v for v in values if v]
        assert len(values) == len(set(values)), field


def test_the_spec_s_files_are_all_there():
    """The checkpoints of the papers on tagging and of AudioTagging Done Right are listed."""
    names = {row.name for row in ROWS}
    assert {
        "cnn6", "cnn10", "cnn14", "cnn14_decision_max", "resnet22", "resnet38",
        "wavegram_logmel_cnn14", "convnext_tiny_471", "convnext_tiny_465",
        "passt_s_swa_p16_128_ap476", "passt_s_p16_s16_128_ap468", "passt_l_kd_p16_128_ap47",
        "ast_10_10_0.4593", "ast_10_10_0.4593_hf", "ast_speechcommands_10_10_0.9812",
        "ced_tiny", "ced_base", "mn04_as", "mn10_as", "mn40_as_ext", "psla_wa_0.444",
    } <= names  # fmt: skip
    assert sum(row.family == "passt" for row in ROWS) == 17
    assert sum(row.variant == "base384" for row in ROWS) == 9
    file = "openmic2008.passt-u-f128-p16-s10-ap.85-swa.pt"
    row = published.by_file(file)
    assert row.urls == (
        f"https://github.com/kkoutini/PaSST/releases/download/v0.0.4-openmic/{file}",
    )
    assert published.find("cnn6").urls == (
        "https://zenodo.org/record/3987831/files/Cnn6_mAP%3D0.343.pth?download=1",
    )


@pytest.mark.parametrize("saved", ["Cnn6_mAP=0.343.pth", "Cnn6_mAP%3D0.343.pth?download=1"])
def test_a_file_is_known_by_the_name_a_browser_or_wget_gives_it(saved):
    assert published.by_file(saved) is published.find("cnn6")


def test_the_table_shows_name_score_and_licence():
    text = published.table()
    line = next(x for x in text.splitlines() if x.startswith("mn10_as "))
    assert "mobilenet mn10" in line
    assert "mAP .471" in line
    assert "MIT" in line
    assert len(text.splitlines()) == len(published.rows()) + 5
    only = published.table([r for r in published.rows() if r["family"] == "convnext"])
    assert "convnext_tiny_471" in only
    assert "passt" not in only


# ---------------------------------------------------------------------------------- fetching


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, with the faults that the server object asks for."""

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            return self.send_error(server.status)
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if not server.ranges or self.headers.get("If-Range", server.tag) != server.tag:
            start = 0
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            total = len(CONTENT)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.tag)
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        self.wfile.write(body[:cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("ASJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "TIMEOUT_S", 5)
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.status, found.ranges, found.tag, found.cuts, found.asked = 200, True, '"v1"', [], []
    thread = threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def row_of(server, **other):
    url = f"http://127.0.0.1:{server.server_address[1]}/x.pth"
    known = dict(sha256=hashlib.sha256(CONTENT).hexdigest())
    return ROWS[0]._replace(file="x.pth", urls=(url,), **{**known, **other})


def left(server):
    return {path.name for path in download.folder().iterdir()}


def test_a_file_is_fetched_once_and_proven(server):
    path = download.fetch(row_of(server))
    assert path.read_bytes() == CONTENT
    assert left(server) == {"x.pth"}
    assert download.fetch(row_of(server)) == path
    assert server.asked == [None]


def test_a_cut_connection_is_taken_up_where_it_broke(server):
    server.cuts = [1_500_000, 700_000]
    assert download.fetch(row_of(server)).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1500000-", "bytes=2200000-"]


def test_a_server_that_always_cuts_is_named_and_the_next_call_goes_on(server):
    server.cuts = [1000] * download.TRIES
    with pytest.raises(
        AsjaxError, match=r"cut off after 4,000 bytes .* run the same command again"
    ):
        download.fetch(row_of(server))
    assert left(server) == {"x.pth.part", "x.pth.part.json"}
    server.asked.clear()
    assert download.fetch(row_of(server)).read_bytes() == CONTENT
    assert server.asked == ["bytes=4000-"]
    assert left(server) == {"x.pth"}


@pytest.mark.parametrize("how", ["no ranges", "new version", "weak tag"])
def test_a_part_is_not_joined_to_anything_else(server, how):
    if how == "weak tag":
        server.tag = 'W/"v1"'
    server.cuts = [500_000] * download.TRIES
    with pytest.raises(AsjaxError, match="cut off"):
        download.fetch(row_of(server))
    server.ranges = how != "no ranges"
    server.tag = '"v2"' if how == "new version" else server.tag
    assert download.fetch(row_of(server)).read_bytes() == CONTENT


def test_another_hash_is_an_error_and_leaves_nothing(server):
    with pytest.raises(AsjaxError, match="is not the published cnn6: its sha256 is .* was deleted"):
        download.fetch(row_of(server, sha256="0" * 64))
    assert left(server) == set()
    with pytest.raises(AsjaxError, match="its md5 is"):
        download.fetch(row_of(server, sha256=None, md5="0" * 32))
    path = download.fetch(row_of(server, sha256=hashlib.sha256(CONTENT).hexdigest()[:8]))
    path.write_bytes(b"changed")
    with pytest.raises(AsjaxError, match="delete it to fetch it again"):
        download.fetch(row_of(server))


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_server_s_refusal_is_one_line_with_the_address(server, status):
    server.status = status
    with pytest.raises(AsjaxError) as caught:
        download.fetch(row_of(server))
    text = str(caught.value)
    assert f"could not be fetched (the server answers {status}" in text
    assert row_of(server).urls[0] in text
    assert "asjax port x.pth" in text
    assert "\n" not in text
    assert left(server) == set()


def test_the_second_address_is_tried(server):
    good = row_of(server)
    both = good._replace(urls=("http://127.0.0.1:9/none", *good.urls))
    assert download.fetch(both).read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://no-such-host.invalid/x"])
def test_without_a_network_the_line_says_so(server, url):
    with pytest.raises(AsjaxError, match=r"there is no network \(.*fetch http.*by other means"):
        download.fetch(row_of(server)._replace(urls=(url,)))
    assert left(server) == set()


def test_two_processes_do_not_write_one_file(server):
    download.folder().mkdir(parents=True)
    with (download.folder() / "x.pth.part").open("ab") as file:
        assert files.lock(file)
        with pytest.raises(AsjaxError, match="another process is downloading"):
            download.fetch(row_of(server))


def test_a_full_disk_is_known_before_the_transfer(server, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("U", (), {"free": 1000}))
    with pytest.raises(AsjaxError, match="MB free, x.pth needs 3 MB"):
        download.fetch(row_of(server))


def test_a_published_name_is_fetched_by_port(server, monkeypatch):
    monkeypatch.setattr(published, "ROWS", (row_of(server), *ROWS[1:]))
    place = locate.locate("cnn6")
    assert place.path.read_bytes() == CONTENT
    assert place.row.family == "cnn"


def test_unknown_names_list_the_nearest():
    with pytest.raises(AsjaxError, match="did you mean 'passt_s_swa_p16_128_ap476'"):
        locate.locate("passt_s_swa_p16_128_ap477")
