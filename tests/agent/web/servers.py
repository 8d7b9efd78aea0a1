"""`agent serve` as a user starts it, in a process of its own, and a client without a browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlencode, urlsplit

from tests.agent.conftest import agent_command, agent_environment


@dataclass
class Client:
    """Asks one server, with its cookie."""

    port: int
    token: str
    process: subprocess.Popen[str] | None = None
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The address without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def cookie(self) -> dict[str, str]:
        """The header that a browser sends once it has opened the address."""
        return {"Cookie": f"initsearch-{self.port}={self.token}"}

    def ask(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: str | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers (names in lower case) and body. `headers`: all but Host, instead of the cookie."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(self.cookie if headers is None else headers))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def page(self, path: str) -> str:
        """A page that must be there."""
        status, _, body = self.ask(path)
        assert status == 200, (path, status, body[:500])
        return body

    def post(
        self, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Send a form as a browser does."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask(path, method="POST", headers={**self.cookie, **kind, **(headers or {})}, body=urlencode(fields))

    def form(self, page: str) -> dict[str, str]:
        """The hidden fields of the verdict's form on a run's page."""
        form = page[page.index('id="verdict"') : page.index("</form>", page.index('id="verdict"'))]
        return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', form))


@contextlib.contextmanager
def serving(runs: Path, *words: str, cache: Path, env: Mapping[str, str] | None = None) -> Iterator[Client]:
    """A server for a folder of runs, stopped at the end as Ctrl-C does."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            agent_command("serve", "--runs", str(runs), "--no-browser", *words),
            cwd=runs.parent,
            env=agent_environment(cache, env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield Client(*_address(process, errors), process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            finally:
                assert process.stdout is not None
                process.stdout.close()


def _address(process: subprocess.Popen[str], errors: IO[str]) -> tuple[int, str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        errors.seek(0)
        raise AssertionError(f"no address: {errors.read()}")
    parts = urlsplit(line.strip())
    assert parts.port is not None
    return parts.port, parts.query.removeprefix("token=")


def events_of(client: Client, path: str, count: int) -> list[tuple[str, object]]:
    """The first events of a feed."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    try:
        connection.request("GET", path, headers=client.cookie)
        answer = connection.getresponse()
        assert answer.getheader("content-type", "").startswith("text/event-stream")
        found: list[tuple[str, object]] = []
        kind = ""
        while len(found) < count:
            line = answer.readline().decode().rstrip("\n")
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((kind, json.loads(line.removeprefix("data: "))))
        return found
    finally:
        connection.close()
