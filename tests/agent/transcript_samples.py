"""Small conversations in the public record's format, written by hand so that no code under test made them."""

# ruff: noqa: W291 (an empty listed line is recorded with the space after its number)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.transcripts import Replay, parse_transcript, replay

NAME = "lab/custom.py"
LISTING = """# Task: toy

## lab/custom.py  [EDITABLE — lines 3–4 only]
```python
     1: import math
     2: 
     3: def f(x):
     4:     return x
     5: 
     6: print(f(1))
```

## base baseline — editable region  [READ-ONLY — reference implementation]
```python
Lines 3–4:
     3: def f(x):
     4:     return 2 * x
```

## Evaluation Commands
  - `scripts/small.sh` → label: `small`
  - `scripts/large.sh` → label: `large-v2`
"""

TWO_FILES = """## lab/custom.py  [EDITABLE — lines 2–3, lines 5–5 only]
```python
     1: a = 1
     2: b = 2
     3: c = 3
     4: d = 4
     5: e = 5
```

## lab/config.yaml  [EDITABLE — lines 1–2 only]
```python
     1: model:
     2:   class: Custom
```
"""


def view(body: str, editable: str = "3–4", total: int = 6, name: str = NAME) -> str:
    """A view as the tools print it; `body` has its lines with their numbers."""
    return f"[Current file: {name} | editable: {editable} | total: {total} lines]\n{body}"


DOUBLED = "def f(x):\n    y = 2 * x\n    return y"
DOUBLED_REPLY = "OK: Replaced lines 3..4 with 3 line(s) in lab/custom.py. Editable range: 3–5.\n\n" + view(
    "     1| import math\n     2| \n     3  def f(x):\n     4      y = 2 * x\n     5      return y\n     6| \n"
    "     7| print(f(1))",
    "3–5",
    7,
)
UNDONE_REPLY = "Undo complete:\nRestored: lab/custom.py"
REFUSED_REPLY = "ERROR: Lines 1..6 exceed the editable range. You may only edit lines 3–4.\n\n" + view(
    "     1| import math\n     2| \n     3  def f(x):\n     4      return x\n     5| \n     6| print(f(1))"
)


def edit(first: int, last: int, content: str, name: str = NAME, **more: Any) -> dict[str, Any]:
    """The arguments of a replacement."""
    return {"op": "replace", "filename": name, "start_line": first, "end_line": last, "content": content, **more}


def prompt(text: str = LISTING, cut: bool = False) -> list[dict[str, Any]]:
    """The message that opens a segment."""
    return [{"step": 0, "role": "user", "content": text, **({"content_truncated": True} if cut else {})}]


def call(step: int, tool: str, arguments: object, result: str | None, cut: bool = False) -> list[dict[str, Any]]:
    """A call and, unless None, its reply."""
    asked: dict[str, Any] = {"step": step, "role": "assistant", "tool_name": tool}
    if arguments is not None:
        asked["tool_input"] = arguments
    if result is None:
        return [asked]
    flag = {"result_truncated": True} if cut else {}
    return [asked, {"step": step, "role": "tool_result", "result": result, **flag}]


def conversation(*parts: list[dict[str, Any]], snapshots: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A whole conversation of these messages."""
    return {
        "task_id": "toy",
        "model": "some/model",
        "model_slug": "some--model",
        "total_steps": 1,
        "messages": [message for part in parts for message in part],
        "file_snapshots": snapshots or [],
    }


def snapshot(step: int, content: str, flat: str = "lab_custom.py") -> dict[str, Any]:
    """A file as the record keeps it, under a mangled name."""
    return {"step": step, "filename": "lab/custom.py", "original_name": f"step_{step}_{flat}", "content": content}


def replayed(document: dict[str, Any]) -> tuple[list[str], list[str | None], Replay]:
    """Verdicts and reasons of every call, and the replay with its counts."""
    run = replay(parse_transcript(document))
    results = list(run)
    return [result.verdict for result in results], [result.reason for result in results], run


def write(folder: Path, document: object) -> Path:
    """The document as a file."""
    path = folder / "conversation.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
