"""Checks that need a GPU: `make test-gpu`, or `python -m tests.gpu` where pytest is not installed."""
