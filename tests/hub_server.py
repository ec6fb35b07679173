"""A stand-in for the Hugging Face hub on loopback: the answers huggingface_hub, datasets and transformers ask for.

It serves the files under a folder, `models/OWNER/NAME/...` and `datasets/OWNER/NAME/...`, and takes uploads. A
repository has one commit, made from its content, so a changed file is a new commit.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

# Kept as large files, told apart by a sha256 instead of git's own hash.
LARGE = {".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".parquet", ".arrow", ".gz", ".zip"}
REPOSITORY = "(?P<repository>[^/]+(?:/[^/]+)?)"
API = re.compile(
    f"/api/(?P<kind>models|datasets)/{REPOSITORY}"
    "(?:/(?P<verb>revision|tree|paths-info|preupload|commit)/(?P<revision>[^/]+)(?:/(?P<path>.*))?)?"
)
FILE = re.compile(f"/(?:(?P<kind>models|datasets)/)?{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class HubServer:
    """The server and what a test can ask or tell it.

    Attributes:
        folder: what it serves; files may come and go.
        url: for HF_ENDPOINT.
        requests: (method, path) of each request since the last reset.
        truncate: file name -> byte at which every answer with this file breaks off.
        garble: names of files sent with the right length and other bytes.
        private: repository -> the X-Error-Code it has for whom sends no token.
        tags: repository -> names of revisions beside main and the commit.
        renamed: old repository name -> new one, answered by a redirect.
        hidden: repositories that were created as private ones.
        down: a status every request gets, 503 say; None means it works.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.reset()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        """Forgets requests and faults; the files stay."""
        self.requests: list[tuple[str, str]] = []
        self.truncate: dict[str, int] = {}
        self.garble: set[str] = set()
        self.private: dict[str, str] = {}
        self.tags: dict[str, set[str]] = {}
        self.renamed: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.down: int | None = None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, repository: str, files: dict[str, bytes], *, kind: str = "models") -> str:
        """Writes files of a repository; returns its commit."""
        for name, content in files.items():
            path = self.folder / kind / repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return self.commit(repository, kind=kind)

    def files(self, repository: str, *, kind: str = "models") -> dict[str, Path]:
        """Name -> path of all files of a repository; empty when there is no such repository."""
        top = self.folder / kind / repository
        return {str(path.relative_to(top)): path for path in sorted(top.rglob("*")) if path.is_file()}

    def commit(self, repository: str, *, kind: str = "models") -> str:
        digest = hashlib.sha1(repository.encode())
        for name, path in self.files(repository, kind=kind).items():
            digest.update(name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()

    def fetched(self) -> list[str]:
        """The files that were asked for by GET, sorted."""
        matches = [FILE.fullmatch(path) for method, path in self.requests if method == "GET"]
        return sorted(match["path"] for match in matches if match)


def _entry(name: str, path: Path) -> dict:
    """A file as /tree and /paths-info list it."""
    content = path.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry = {"type": "file", "path": name, "size": len(content), "oid": git}
    if path.suffix in LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _sibling(name: str, path: Path, *, blobs: bool) -> dict:
    """A file as a repository's description lists it."""
    if not blobs:
        return {"rfilename": name}
    entry = _entry(name, path)
    sibling = {"rfilename": name, "size": entry["size"], "blobId": entry["oid"]}
    if "lfs" in entry:
        sibling["lfs"] = {"sha256": entry["lfs"]["oid"], "size": entry["size"], "pointerSize": 134}
    return sibling


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_GET(self):
        self._answer()

    def do_HEAD(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def log_message(self, *_):
        pass

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        self.hub.requests.append((self.command, unquote(address.path)))
        if self.hub.down is not None:
            self._fault(self.hub.down, None)
        elif address.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif address.path == "/api/repos/create":
            self._create(json.loads(body))
        elif match := API.fullmatch(address.path) or FILE.fullmatch(address.path):
            parts = {name: unquote(value) for name, value in match.groupdict().items() if value}
            self._repository(parts.pop("kind", "models"), parts, parse_qs(address.query), body)
        else:
            self._fault(404, "EntryNotFound")

    def _repository(self, kind: str, parts: dict, query: dict, body: bytes):
        repository, verb, revision = parts["repository"], parts.get("verb"), parts.get("revision", "main")
        path, hub = parts.get("path", ""), self.hub
        folder, commit = hub.folder / kind / repository, hub.commit(repository, kind=kind)
        files = hub.files(repository, kind=kind)
        if repository in hub.renamed:
            location = self.path.replace(repository, hub.renamed[repository], 1)
            self._send(307, b"", {"Location": hub.url + location})
        elif repository in hub.private and "Authorization" not in self.headers:
            self._fault(401, hub.private[repository])
        elif not folder.is_dir():
            self._fault(404 if "Authorization" in self.headers else 401, "RepoNotFound")  # as the hub does
        elif revision not in {"main", commit, *hub.tags.get(repository, ())}:
            self._fault(404, "RevisionNotFound")
        elif verb == "tree":
            self._tree(folder, files, path, recursive=query.get("recursive", ["false"])[0].lower() == "true")
        elif verb == "paths-info":
            asked = parse_qs(body.decode())["paths"]
            self._json([self._listed(name, folder / name) for name in asked if (folder / name).exists()])
        elif verb == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif verb == "commit":
            self._commit(kind, repository, body)
        elif "path" in parts:
            self._file(path, files, commit)
        else:
            siblings = [_sibling(name, file, blobs="blobs" in query) for name, file in files.items()]
            facts = {"id": repository, "sha": commit, "private": repository in hub.hidden, "tags": []}
            self._json(facts | {"siblings": siblings})

    def _listed(self, name: str, path: Path) -> dict:
        if path.is_dir():
            return {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
        return _entry(name, path)

    def _tree(self, folder: Path, files: dict[str, Path], path: str, *, recursive: bool):
        if not (folder / path).is_dir():
            return self._fault(404, "EntryNotFound")
        found = (folder / path).rglob("*") if recursive else (folder / path).iterdir()
        return self._json([self._listed(str(file.relative_to(folder)), file) for file in sorted(found)])

    def _file(self, name: str, files: dict[str, Path], commit: str):
        if name not in files:
            return self._fault(404, "EntryNotFound", {"X-Repo-Commit": commit})
        entry, content = _entry(name, files[name]), files[name].read_bytes()
        headers = {"ETag": f'"{entry["oid"]}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(len(content))}
        if name in self.hub.garble:
            content = bytes(len(content))
        start, stop = 0, len(content)
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(asked[1]), min(int(asked[2] or stop) + bool(asked[2]), stop)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        limit = self.hub.truncate.get(name)
        return self._send(206 if asked else 200, content[start:stop], headers, limit=limit and max(0, limit - start))

    def _create(self, wanted: dict):
        if "Authorization" not in self.headers:
            return self._fault(401, None)
        repository = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        folder = self.hub.folder / f"{wanted.get('type') or 'model'}s" / repository
        answer = {"url": f"{self.hub.url}/{repository}", "name": repository}
        if folder.is_dir():
            return self._send(409, json.dumps(answer).encode(), {})
        folder.mkdir(parents=True)
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.hub.hidden.add(repository)
        return self._json(answer)

    def _commit(self, kind: str, repository: str, body: bytes):
        if "Authorization" not in self.headers:
            return self._fault(401, None)
        values = [json.loads(line) for line in body.splitlines()]
        files = {v["value"]["path"]: base64.b64decode(v["value"]["content"]) for v in values if v["key"] == "file"}
        commit = self.hub.add(repository, files, kind=kind)
        url = f"{self.hub.url}/{quote(repository)}/commit/{commit}"
        return self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _fault(self, status: int, code: str | None, headers: dict[str, str] | None = None):
        self._send(status, b'{"error": "refused"}', (headers or {}) | ({"X-Error-Code": code} if code else {}))

    def _json(self, content):
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, limit: int | None = None):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:limit])
            self.close_connection = self.close_connection or limit is not None
