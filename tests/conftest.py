"""What all tests share."""

from __future__ import annotations

import os

# Before torch is imported. Two test files run at a time, and others may use the machine: with more threads than free
# cores torch's workers wait for each other at every small operation, which makes tests several times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
