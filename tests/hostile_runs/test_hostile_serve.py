"""`agent serve` shows somebody else's run directories: it runs nothing, shows nothing from outside, and stays alive."""

from __future__ import annotations

import html
import os
import re
import shlex
import shutil
import time
from pathlib import Path

import pytest

from tests.agent.web.servers import Client, events_of, serving
from tests.hostile_runs.harms import HARMS, SECRET, STEERING, Target
from tests.hostile_runs.test_hostile_runs import _TRAPS, THOROUGH, _fingerprint
from tests.sample import SAMPLE, restore

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
_ALL = os.environ.get("INITSEARCH_HOSTILE") == "all"
_HARMS = HARMS if _ALL else [*HARMS[::3], *(harm for harm in HARMS if harm.name in THOROUGH)]
"""A third of them: a page reads with the functions whose commands look at every harm. INITSEARCH_HOSTILE=all: all."""
_NAME = '20261101-120000-"><img src=x onerror=alert(1)>'


def test_hostile_runs_in_a_browser(tmp_path: Path) -> None:
    """Every harm, in one folder, with a run whose name is markup: list, page, feed, files, comparison and review."""
    runs, outside, traps, marker = (tmp_path / name for name in ("runs", "outside", "traps", "marker"))
    for folder in (runs, outside, traps):
        folder.mkdir()
    (outside / "secret").write_text(SECRET)
    (outside / "secret.json").write_text(f'"{SECRET}"')
    for name in _TRAPS:
        (traps / name).write_text(f"#!/bin/sh\necho {name} >> {marker}\n")
        (traps / name).chmod(0o755)
    good = restore(SAMPLE, tmp_path / "good").path
    shutil.copytree(good, runs / _NAME, symlinks=True)
    (runs / os.fsdecode(b"20261101-\xff\xfe")).mkdir()
    for harm in dict.fromkeys(_HARMS):
        run, beside = runs / harm.name, outside / harm.name
        shutil.copytree(good, run, symlinks=True)
        beside.mkdir()
        for name in ("secret", "secret.json"):
            shutil.copyfile(outside / name, beside / name)
        harm.do(Target(run, beside, marker))
    before = _fingerprint(outside)
    environment = {"PATH": f"{traps}{os.pathsep}{os.environ['PATH']}"}
    with serving(runs, cache=tmp_path / "cache", env=environment) as client:
        listed = client.page("/")
        for harm in dict.fromkeys(_HARMS):
            _look(client, harm.name)
            assert f"/runs/{harm.name}/" in listed, harm.name
            assert not marker.exists(), harm.name
        _is_harmless(listed, "/")
        (link,) = re.findall(r'<a href="(/runs/[^"]*img[^"]*/)">', listed)
        page = client.page(link)
        _is_harmless(page, link)
        assert "<img" not in page + listed
        quoted = html.escape(shlex.quote(_NAME))  # whoever copies the command types this name, and no other command
        assert f"agent review {quoted} --approve" in page.replace("&#39;", "&#x27;").replace("&#34;", "&quot;")
        assert client.ask("/")[0] == 200
    assert _fingerprint(outside) == before
    assert not marker.exists()


def _look(client: Client, name: str) -> None:
    started = time.monotonic()
    page = client.page(f"/runs/{name}/")
    _is_harmless(page, name)
    for path in ("files/submission.patch", "files/events.jsonl"):
        status, headers, body = client.ask(f"/runs/{name}/{path}")
        assert status in (200, 404), (name, path)
        assert SECRET not in body, name
        assert status == 404 or headers["content-disposition"].startswith("attachment")
    (kind, live), (_, version) = events_of(client, f"/runs/{name}/feed", 2)
    assert (kind, live, bool(version)) == ("live", "", True), name
    if 'id="verdict"' in page:
        status, _, body = client.post(f"/runs/{name}/review", client.form(page) | {"kind": "comment", "message": "m"})
        assert status in (303, 400, 409), (name, status)
        _is_harmless(body, name)
    assert time.monotonic() - started < 30, name


def _is_harmless(page: str, name: str) -> None:
    assert SECRET not in page, name
    assert not {char for char in set(STEERING) & set(page) if not char.isprintable()}, name
    assert "<script" not in page.replace('<script src="/static/web.js" defer></script>', ""), name
