"""The benchmark of isolation runs and reports what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_zygote_beats_a_cold_start() -> None:
    """One command measures the numbers in SECURITY.md again. A fork is faster than importing torch."""
    command = [
        sys.executable,
        "-m",
        "sandbox.bench",
        "--arch",
        "resnet20",
        "--rounds",
        "1",
        "--level",
        "none",
        "--json",
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["arch"] == "resnet20"
    rows = found["levels"]["none"]
    assert rows["cold"]["n"] == 1
    assert rows["zygote"]["n"] == 5
    assert rows["zygote"]["median_ms"] < rows["cold"]["median_ms"]
