"""Scaled variants of any region."""

from __future__ import annotations


def readable(value: float) -> str:
    """A float literal with at most four significant digits, such as 0.1 or 2.0 or 1e-05."""
    text = f"{value:.4g}"
    return text if any(mark in text for mark in ".e") else f"{text}.0"
