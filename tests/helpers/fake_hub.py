"""A Hugging Face Hub on loopback, as far as this package asks for one: a repository of models, its files, commits."""

import base64
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SHA = "0" * 40  # of the one revision there is


class FakeHub(http.server.ThreadingHTTPServer):
    """repositories: files by name, by repository. token: of writers. asked: method, path and token of each request."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[tuple[str, str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.server.asked.append((self.command, path, token))
        if self.command == "POST" and token != self.server.token:
            return self._reply(401, {"error": "Invalid credentials"})
        match path.split("/"):
            case ["api", "repos", "create"]:
                asked = json.loads(data)
                name = f"{asked['organization']}/{asked['name']}"
                is_there = name in self.server.repositories
                self.server.repositories.setdefault(name, {})
                self.server.private.setdefault(
                    name, asked.get("visibility") == "private" or asked.get("private") is True
                )
                return self._reply(409 if is_there else 200, {"url": f"{self.server.url}/{name}", "name": name})
            case ["api", "validate-yaml"]:  # of a card
                return self._reply(200, {"errors": [], "warnings": []})
            case ["api", "models", user, name, *rest]:
                return self._api(f"{user}/{name}", rest, data)
            case [user, name, "resolve", _, *parts]:
                return self._file(self._files(f"{user}/{name}").get("/".join(parts)))
        return self._reply(404, {"error": "no such page"})

    do_GET = do_POST = do_HEAD = _answer

    def _files(self, repo: str) -> dict[str, bytes]:
        return self.server.repositories.get(repo, {})

    def _api(self, repo: str, rest: list[str], data: bytes) -> None:
        if repo not in self.server.repositories:
            return self._reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        files = self._files(repo)
        match rest:
            case ["preupload", _]:
                names = [one["path"] for one in json.loads(data)["files"]]
                return self._reply(
                    200,
                    {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]},
                )
            case ["commit", _]:
                for line in map(json.loads, data.splitlines()):
                    if line["key"] == "file":
                        files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    elif line["key"] == "deletedFile":
                        del files[line["value"]["path"]]
                url = f"{self.server.url}/{repo}/commit/{SHA}"
                return self._reply(200, {"commitUrl": url, "commitOid": SHA, "success": True})
            case ["tree", _, *_]:
                return self._reply(200, [_entry(name, content) for name, content in files.items()])
            case ["paths-info", _]:
                wanted = urllib.parse.parse_qs(data.decode()).get("paths") or json.loads(data or b"{}").get("paths", [])
                return self._reply(200, [_entry(name, files[name]) for name in wanted if name in files])
        siblings = [{"rfilename": name} for name in files]
        return self._reply(200, {"id": repo, "sha": SHA, "private": self.server.private[repo], "siblings": siblings})

    def _file(self, content: bytes | None) -> None:
        if content is None:
            return self._reply(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        whole = len(content)
        head = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            content = content[int(first) : int(last or whole) + 1]
            head["Content-Range"] = f"bytes {first}-{int(first) + len(content) - 1}/{whole}"
        return self._reply(206 if wanted else 200, content, head)

    def _reply(self, code: int, body: Any, head: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **(head or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}


@contextmanager
def fake_hub(token: str = "hf_of_a_test") -> Iterator[FakeHub]:
    """A hub that answers while the block runs."""
    hub = FakeHub(token)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
