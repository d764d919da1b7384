"""
A stand-in for the Hugging Face Hub on loopback: enough of it to create repositories, commit to them and load models from them.

Private repositories are there for the owner's token only. Faults can be switched on.
"""

import base64
import hashlib
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "a" * 40


@dataclass
class Repository:
    """Files by path; `sdk` of a Space."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    sdk: str | None = None


class FakeHub(ThreadingHTTPServer):
    """
    Args:
        token: of the only user, `me`, who may write to repositories of `me` alone.
    """

    daemon_threads = True

    def __init__(self, token: str = "hf_me"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.breaks_at_commit = False
        self.commits = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, token: str | None = "hf_me") -> dict[str, str]:
        """What a process must have set to use this hub."""
        settings = {
            "HF_ENDPOINT": self.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        return settings | ({"HF_TOKEN": token} if token else {})


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _answer(self) -> None:
        body = self._read_body()
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        routes = {
            r"/api/whoami-v2": self._whoami,
            r"/api/repos/create": self._create,
            r"/api/validate-yaml": lambda _: self._send(200, {"errors": [], "warnings": []}),
            r"/api/(?:models|spaces)/(?P<repo>[^/]+/[^/]+)/preupload/.+": self._preupload,
            r"/api/(?:models|spaces)/(?P<repo>[^/]+/[^/]+)/commit/.+": self._commit,
            r"/api/(?:models|spaces)/(?P<repo>[^/]+/[^/]+)/tree/.+": self._tree,
            r"/api/(?:models|spaces)/(?P<repo>[^/]+/[^/]+)(/revision/.+)?": self._info,
            r"/(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<file>.+)": self._resolve,
        }
        for pattern, answer in routes.items():
            match = re.fullmatch(pattern, path)
            if match is None:
                continue
            name = match.groupdict().get("repo")
            if name is not None and not self._may_see(name):
                self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif name is not None and self.command == "POST" and not self._may_write(name):
                self._send(403, {"error": f"You don't have the rights to write to {name}"})
            else:
                answer(body, **match.groupdict())
            return
        self._send(404, {"error": f"no such place: {path}"})

    def _is_me(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.server.token}"

    def _may_see(self, name: str) -> bool:
        repository = self.server.repositories.get(name)
        return repository is not None and (self._is_me() or not repository.private)

    def _may_write(self, name: str) -> bool:
        return self._is_me() and name.startswith("me/")

    def _whoami(self, _: bytes) -> None:
        self._send(200, {"name": "me", "type": "user", "orgs": []}) if self._is_me() else self._send(401, {"error": "bad token"})

    def _create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        if not self._is_me():
            self._send(401, {"error": "Invalid username or password."})
        elif not self._may_write(name):
            self._send(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif name in self.server.repositories:
            self._send(409, {"error": "exists", "url": f"{self.server.address}/{name}"})
        else:
            private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
            self.server.repositories[name] = Repository(private, sdk=wanted.get("sdk"))
            self._send(200, {"url": f"{self.server.address}/{name}", "name": name, "id": "1"})

    def _preupload(self, body: bytes, repo: str) -> None:
        files = [
            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def _commit(self, body: bytes, repo: str) -> None:
        if self.server.breaks_at_commit:
            self.close_connection = True
            self.connection.close()
            return
        files = self.server.repositories[repo].files
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                files.pop(line["value"]["path"], None)
        self.server.commits += 1
        url = f"{self.server.address}/{repo}/commit/{COMMIT}"
        self._send(200, {"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def _tree(self, _: bytes, repo: str) -> None:
        files = self.server.repositories[repo].files
        self._send(200, [{"type": "file", "path": p, "size": len(c), "oid": _digest(c)} for p, c in files.items()])

    def _info(self, _: bytes, repo: str) -> None:
        repository = self.server.repositories[repo]
        siblings = [{"rfilename": path} for path in repository.files]
        self._send(200, {"_id": "1", "id": repo, "sha": COMMIT, "private": repository.private, "siblings": siblings, "tags": []})

    def _resolve(self, _: bytes, repo: str, file: str) -> None:
        content = self.server.repositories[repo].files.get(file)
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "none"}
        if content is None:
            self._send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        else:
            self._send(200, content, headers | {"ETag": f'"{_digest(content)}"'})

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
