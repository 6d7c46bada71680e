"""A small Hugging Face Hub on this machine, for huggingface_hub with HF_ENDPOINT; and its cache.

It knows what loading and pushing a model needs: create a repository, commit files, list them, serve
them. Files go inside the commit ("regular" upload), never to LFS or Xet, so those protocols are not
tested. The answers follow huggingface_hub's own code.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_good"


def lay(home, repo, files: dict[str, Path], revision="main", sha="a" * 40) -> Path:
    """A cache as the library writes it: snapshots are links into blobs. Returns the snapshot."""
    root = Path(home) / "hub" / f"models--{repo.replace('/', '--')}"
    snapshot, blobs = root / "snapshots" / sha, root / "blobs"
    for folder in (snapshot, blobs, root / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(sha)
    for name, path in files.items():
        content = Path(path).read_bytes()
        blob = blobs / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(Path("../..") / "blobs" / blob.name)
    return snapshot


def files_of(folder) -> dict[str, Path]:
    return {path.name: path for path in sorted(Path(folder).iterdir()) if path.is_file()}


class Hub:
    """`repos`: id -> {"refs": {revision: sha}, "commits": {sha: {name: bytes}}, "private": bool}.

    `asked` lists (method, path) of all requests.
    """

    def __init__(self):
        self.repos, self.asked, self.down = {}, [], None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                hub._answer(self)

            do_HEAD = do_POST = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def add(self, repo, files: dict[str, bytes], revision="main", private=False):
        """A commit with these files, on top of those of the revision."""
        entry = self.repos.setdefault(repo, {"refs": {}, "commits": {}, "private": private})
        before = entry["commits"].get(entry["refs"].get(revision), {})
        tree = {**before, **{k: Path(v).read_bytes() if isinstance(v, Path) else v
                             for k, v in files.items()}}  # fmt: skip
        text = repr(sorted((k, hashlib.sha1(v).hexdigest()) for k, v in tree.items()))
        sha = hashlib.sha1(text.encode()).hexdigest()
        entry["commits"][sha], entry["refs"][revision] = tree, sha
        return sha

    # ------------------------------------------------------------------------------ the answers

    def _answer(self, request):
        path = unquote(urlsplit(request.path).path)
        self.asked.append((request.command, path))
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.down:
            return self._send(request, self.down, {"error": "down"})
        if path == "/api/repos/create":
            return self._create(request, json.loads(body), token)
        if path == "/api/validate-yaml":
            return self._send(request, 200, {"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/(.+))?", path)
        served = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = found or served
        repo = self.repos.get(match[1]) if match else None
        if repo is None or repo["private"] and token != TOKEN:
            return self._error(request, 404 if token else 401, "RepoNotFound")
        if found:
            return self._api(request, found[1], repo, found[2] or "revision", found[3], body, token)
        sha = repo["refs"].get(served[2], served[2])
        content = repo["commits"].get(sha, {}).get(served[3])
        if content is None:
            return self._error(request, 404, "EntryNotFound", {"X-Repo-Commit": sha})
        about = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": sha}
        self._send(request, 200, content, about)

    def _create(self, request, asked, token):
        name = f"{asked.get('organization')}/{asked['name']}"
        if token != TOKEN:
            return self._send(request, 401, {"error": "Invalid username or password."})
        if name.startswith("others/"):
            return self._send(request, 403, {"error": "You don't have the rights"})
        private = asked.get("private") or asked.get("visibility") == "private"
        known = name in self.repos
        self.repos.setdefault(name, {"refs": {}, "commits": {}, "private": bool(private)})
        answer = {"url": f"{self.url}/{name}", "name": name, "id": name}
        self._send(request, 409 if known else 200, answer)

    def _api(self, request, name, repo, what, rest, body, token):
        revision = (rest or "main").partition("/")[0]
        sha = repo["refs"].get(revision, revision)
        if what in ("preupload", "commit") and token != TOKEN:
            return self._send(request, 401, {"error": "Invalid username or password."})
        if what == "preupload":
            listed = [dict(path=f["path"], uploadMode="regular", shouldIgnore=False)
                      for f in json.loads(body)["files"]]  # fmt: skip
            return self._send(request, 200, {"files": listed})
        if what == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            repo["message"] = next(
                one["value"]["summary"] for one in lines if one["key"] == "header"
            )
            sent = {one["value"]["path"]: base64.b64decode(one["value"]["content"])
                    for one in lines if one["key"] == "file"}  # fmt: skip
            sha = self.add(name, sent, revision)
            url = f"{self.url}/{name}/commit/{sha}"
            return self._send(request, 200, dict(commitUrl=url, commitOid=sha, success=True))
        tree = repo["commits"].get(sha)
        if tree is None and repo["commits"]:
            return self._error(request, 404, "RevisionNotFound")
        tree = tree or {}
        if what == "tree":
            return self._send(request, 200, [
                dict(type="file", path=k, size=len(v), oid=hashlib.sha1(v).hexdigest())
                for k, v in tree.items()
            ])  # fmt: skip
        siblings = [dict(rfilename=k) for k in tree]
        about = dict(id=name, modelId=name, sha=sha, siblings=siblings, private=repo["private"])
        self._send(request, 200, dict(**about, tags=[], downloads=0, likes=0))

    def _error(self, request, status, code, headers=None):
        about = {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}
        self._send(request, status, {"error": code}, about)

    def _send(self, request, status, content, headers=None):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        request.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for key, value in {"Content-Type": kind, "Content-Length": len(raw),
                           **(headers or {})}.items():  # fmt: skip
            request.send_header(key, str(value))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(raw)
