"""Load a recorded conversation: recognise its format. Errors say in one line why a file is not one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from agent.transcripts.atif import is_atif, read_atif
from agent.transcripts.coding_agents import (
    is_codex_document,
    is_mini,
    parse_lines,
    read_codex_document,
    read_coding_session,
    read_mini,
)
from agent.transcripts.mlsbench import has_marks, is_mls_bench, read_mls_bench
from agent.transcripts.model import Transcript, TranscriptError
from agent.transcripts.runs import read_run

MAX_BYTES = 64 * 1024 * 1024
"""The largest conversation of the public record has 0.6 MB; whatever is a hundred times larger is something else."""

MAX_MESSAGES = 20_000
"""The longest conversation of the public record has a few hundred."""

_KNOWN = (
    "known are MLS-Bench conversations (messages, file_snapshots), ATIF trajectories (schema_version, steps), sessions "
    "of Claude Code, Codex and Qwen Code (.jsonl), mini-swe-agent's .traj.json, and run directories"
)


def load_transcript(path: Path | str) -> Transcript:
    """Read the conversation at `path`: a file of a known format, or a run directory.

    Raises TranscriptError when there is no such file, or it is empty, too large, not JSON or of another schema.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return read_run(path)
        size = path.stat().st_size
        if not path.is_file():
            raise TranscriptError(f"{path}: not a regular file; give a transcript's JSON file or a run directory")
        if size > MAX_BYTES:
            raise TranscriptError(
                f"{path}: {size:,} bytes; a transcript has at most {MAX_BYTES:,}. Is it the right file?"
            )
        data = path.read_bytes()
        if path.suffix == ".jsonl" or _has_objects_in_lines(data):
            return _read_jsonl(path, data)
    except FileNotFoundError:
        raise TranscriptError(f"{path}: no such file; `agent runs` lists this machine's runs") from None
    except (OSError, ValueError) as error:
        raise TranscriptError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_transcript(parse_json(data, str(path)), str(path))


def parse_json(data: bytes, where: str) -> object:
    """Parse UTF-8 JSON. Raises TranscriptError with the place where it stops making sense."""
    if not data.strip():
        raise TranscriptError(f"{where}: the file is empty")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TranscriptError(
            f"{where}: not text: byte {error.start} is no UTF-8; a transcript is a JSON file"
        ) from None
    if not text.strip():
        raise TranscriptError(f"{where}: the file is empty")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        shape = text.strip()
        if shape[0] in "{[" and (error.pos >= len(text.rstrip()) or shape[-1] not in "}]"):
            raise TranscriptError(
                f"{where}: the JSON ends in the middle (line {error.lineno}); the file was cut, get it again"
            ) from None
        raise TranscriptError(f"{where}: not JSON: {error.msg}, line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise TranscriptError(f"{where}: not a transcript: its JSON is nested too deeply") from None
    except ValueError as error:
        raise TranscriptError(f"{where}: not a transcript: {error}") from None


def _read_jsonl(path: Path, data: bytes) -> Transcript:
    """A run's log, or the session of a coding agent."""
    first = data.split(b"\n", 1)[0]
    if b'"previous"' in first or not first.strip():
        return read_run(path)
    try:
        records = parse_lines(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise TranscriptError(f"{path}: not text: byte {error.start} is no UTF-8") from None
    if len(records) > MAX_MESSAGES:
        raise TranscriptError(f"{path}: {len(records):,} lines; a transcript has at most {MAX_MESSAGES:,}")
    transcript = read_coding_session(records)
    if transcript is None:
        raise TranscriptError(f"{path}: lines of another schema; {_KNOWN}")
    return transcript


def _has_objects_in_lines(data: bytes) -> bool:
    """Whether this is JSONL, whatever its name: the first line is an object, and more follows."""
    first, _, rest = data.partition(b"\n")
    if not (first.strip().startswith(b"{") and rest.strip()):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def parse_transcript(document: object, where: str = "transcript") -> Transcript:
    """Read an already parsed document of either JSON format. Raises TranscriptError when it is neither."""
    if not isinstance(document, Mapping):
        raise TranscriptError(f"{where}: the JSON is not an object; {_KNOWN}")
    for key in ("messages", "steps"):
        if isinstance(said := document.get(key), list) and len(said) > MAX_MESSAGES:
            raise TranscriptError(f"{where}: {len(said):,} {key}; a transcript has at most {MAX_MESSAGES:,}")
    if is_mini(document):
        return read_mini(document, where)
    if is_codex_document(document):
        return read_codex_document(document)
    if is_atif(document):
        return read_atif(document, where)
    if is_mls_bench(document):
        if not has_marks(document):
            what = (
                "messages without steps, or with tool_calls, as in any chat log"
                if document["messages"]
                else "no message at all"
            )
            raise TranscriptError(f"{where}: {what}; {_KNOWN}")
        return read_mls_bench(document, where)
    keys = ", ".join(sorted(map(str, document))[:8]) or "none"
    raise TranscriptError(f"{where}: of another schema (its keys: {keys:.120}); {_KNOWN}")
