"""What all tests share."""

from __future__ import annotations

import os

# Before torch is imported. Two test files run at a time, and others may use the machine: with more threads than free
# cores torch's workers wait for each other at every small operation, which makes tests several times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What trains in the test's own process asks this one, and would otherwise leave torch with all cores for the tests that
# follow: tables that take 4 s took 83.
os.environ.setdefault("INITSEARCH_THREADS", "1")
