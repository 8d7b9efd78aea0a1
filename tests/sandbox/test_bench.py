"""The benchmark of isolation runs and reports what it says."""

from __future__ import annotations

import json
import runpy

import pytest


def test_the_zygote_beats_a_cold_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One command measures the numbers in SECURITY.md again. A fork is faster than importing torch."""
    words = ("--arch", "resnet20", "--rounds", "1", "--level", "none", "--json")
    monkeypatch.setattr("sys.argv", ["sandbox.bench", *words])
    runpy.run_module("sandbox.bench", run_name="__main__")
    found = json.loads(capsys.readouterr().out)
    assert found["arch"] == "resnet20"
    rows = found["levels"]["none"]
    assert rows["cold"]["n"] == 1
    assert rows["zygote"]["n"] == 5
    assert rows["zygote"]["median_ms"] < rows["cold"]["median_ms"]
