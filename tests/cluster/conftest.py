"""Real clusters on this machine. They start slowly, so their tests run only where INITSEARCH_TEST_CLUSTERS is set."""

from __future__ import annotations

import os

import pytest

ROOT = str(__import__("pathlib").Path(__file__).resolve().parents[2])


def needs_clusters() -> None:
    """Skip unless these tests were asked for."""
    if not os.environ.get("INITSEARCH_TEST_CLUSTERS"):
        pytest.skip("starts a cluster: set INITSEARCH_TEST_CLUSTERS=1; their newest output is in docs/scale/")
