"""The process that parses and compiles untrusted texts under limits of memory and time. It executes none of them.

It is started as `python -I -S compile_child.py MEMORY_BYTES CPU_SECONDS` and imports nothing of this project. A request
is a length (four bytes, big-endian) and that many bytes of UTF-8. An answer is one line of JSON.
"""

from __future__ import annotations

import ast
import contextlib
import json
import resource
import sys
import warnings
from pathlib import Path
from typing import Any


def main(memory: int, seconds: int) -> None:
    """Answer requests until the input ends. `memory` is in bytes beyond what the process has at its start."""
    with contextlib.suppress(OSError, ValueError):  # only Linux has /proc, and some kernels do not limit address spaces
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    _say({})
    while len(head := sys.stdin.buffer.read(4)) == 4:
        text = sys.stdin.buffer.read(int.from_bytes(head, "big")).decode("utf-8", "surrogatepass")
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, resource.RLIM_INFINITY)
        )
        _say(_verdict(text))


def _verdict(text: str) -> dict[str, Any]:
    parsed = False
    try:
        ast.parse(text)
        parsed = True
        compile(text, "region", "exec", dont_inherit=True)
    except SyntaxError as error:
        return {"error": "syntax", "message": error.msg, "line": error.lineno or 1, "column": error.offset}
    except MemoryError:
        # The parser raises MemoryError when its stack is full, the compiler only when memory runs out.
        return {"error": "costly"} if parsed else {"error": "syntax", "message": "nested too deeply"}
    except (ValueError, RecursionError) as error:
        return {"error": "syntax", "message": str(error)}
    return {}


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
