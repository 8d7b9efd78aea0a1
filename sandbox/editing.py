"""Edit files with numbered lines and editable ranges. Replies equal those of the public benchmark's tools.

Everything is pure and in memory: the git workspace and the replay of recorded conversations use the same code. A file
has fixed lines and one or more editable ranges. An edit must lie inside one range, which grows or shrinks with it.

Rules for the arguments:
- line numbers are integers; "12" and 12.0 are read as 12, true/false and anything else are refused;
- content is split at "\\n", one final newline adds no line, "" is zero lines; tabs and the like stay as they are;
- NUL bytes, half surrogate pairs and texts over `MAX_EDIT_BYTES` are refused;
- arguments that an operation does not need are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from sandbox.lines import EditableFile, Range, split_lines, unify_newlines

MAX_EDIT_BYTES = 256 * 1024
_CONTEXT_LINES = 3

ReplyKind = Literal[
    "outside_region", "not_allowed", "invalid_arguments", "unknown_tool", "nothing_to_undo", "too_large"
]


class Dialect(Enum):
    """Which replies the editor gives and which edits it accepts.

    RECORDED behaves like the harness of the recorded conversations, faults included: an emptied range stays locked,
    nothing can be inserted after a range's last line, and line endings are kept. OURS begins every reply with the same
    lines and may add more below. An emptied range stays editable, and text can be inserted after a range's last line.
    """

    OURS = "ours"
    RECORDED = "recorded"


@dataclass(frozen=True)
class Reply:
    """The reply of a tool. If `ok` is false, `kind` says why. In dialect OURS `text` ends with the `warnings`."""

    text: str
    ok: bool = True
    kind: ReplyKind | None = None
    warnings: tuple[str, ...] = ()


def unknown_tool(name: str) -> Reply:
    """Return the reply to a call of an unknown tool."""
    return Reply(f"ERROR: Unknown tool '{name}'", ok=False, kind="unknown_tool")


def invalid_arguments(tool: str, detail: str) -> Reply:
    """Return the reply to arguments that do not fit the tool."""
    return Reply(f"ERROR: Invalid arguments for '{tool}': {detail}", ok=False, kind="invalid_arguments")


def unparseable_arguments(detail: str) -> Reply:
    """Return the reply to arguments that are not a JSON object."""
    return Reply(f"ERROR: Failed to parse tool arguments: {detail}", ok=False, kind="invalid_arguments")


class _RefusedError(Exception):
    """A refused edit, with the first lines of the reply and the file to show below them, if any."""

    def __init__(self, text: str, kind: ReplyKind, file: EditableFile | None = None, hint: str = "") -> None:
        super().__init__(text)
        self.text, self.kind, self.file, self.hint = text, kind, file, hint


def _invalid(detail: str, file: EditableFile | None = None) -> _RefusedError:
    return _RefusedError(invalid_arguments("edit", detail).text, "invalid_arguments", file)


@dataclass
class Editor:
    """The files that are being edited, with one undo stack for all of them.

    `advise` checks a file after each accepted edit and returns warnings for the author, without "WARNING:".
    """

    files: dict[str, EditableFile]
    dialect: Dialect = Dialect.OURS
    advise: Callable[[EditableFile], Sequence[str]] | None = None
    _undo: list[tuple[str, list[str], list[Range]]] = field(default_factory=list, init=False)

    @classmethod
    def of(
        cls,
        *files: EditableFile,
        dialect: Dialect = Dialect.OURS,
        advise: Callable[[EditableFile], Sequence[str]] | None = None,
    ) -> Editor:
        """Return an editor of these files."""
        return cls({file.name: file for file in files}, dialect, advise)

    @property
    def undo_depth(self) -> int:
        """How many accepted edits can be taken back."""
        return len(self._undo)

    # -- the tools ------------------------------------------------------------------------------------------------

    def edit(self, arguments: Mapping[str, object]) -> Reply:
        """Apply one `edit` call. A refused call changes nothing."""
        try:
            file = self._target(arguments)
            op = arguments.get("op")
            if op == "create":
                shown = file if file.name == arguments.get("filename") else None
                raise _RefusedError("ERROR: allow_create is false; cannot create new files", "not_allowed", shown)
            if op == "replace":
                return self._replace(file, arguments)
            if op == "insert":
                return self._insert(file, arguments)
            if op is None:
                raise _invalid("op is missing; it is one of replace, insert, create", file)
            raise _invalid(f"unknown op {op!r:.60}; it is one of replace, insert, create", file)
        except _RefusedError as refused:
            return self._refusal(refused)

    def rewrite(self, content: object, filename: str | None = None) -> Reply:
        """Replace the whole first editable range, so that no stale line number matters. Only OURS has this tool."""
        try:
            file = self._file_for_tool("rewrite", filename)
            if not file.ranges:
                raise _RefusedError(f"ERROR: {file.name} has no editable range", "outside_region", file)
            new = self._content(content, file, "rewrite")
            whole = file.ranges[0]
            done = f"OK: Rewrote the editable range with {len(new)} line(s) in {file.name}."
            return self._apply(file, whole.start, whole.end, new, done)
        except _RefusedError as refused:
            return self._refusal(refused)

    def view(self, filename: str | None = None) -> Reply:
        """Show a file as it is now. Only OURS has this tool."""
        try:
            return Reply(self.render(self._file_for_tool("view", filename)))
        except _RefusedError as refused:
            return self._refusal(refused)

    def undo(self, n: object = 1) -> Reply:
        """Take back the last `n` accepted edits, or all if there are fewer."""
        count = _as_line_number(n)
        if count is None or count < 1:
            return invalid_arguments("undo", f"n must be a whole number of at least 1, not {n!r:.60}")
        if not self._undo:
            return Reply("ERROR: Nothing to undo", ok=False, kind="nothing_to_undo")
        restored: list[str] = []
        while self._undo and len(restored) < count:
            name, lines, ranges = self._undo.pop()
            self.files[name].lines, self.files[name].ranges = lines, ranges
            restored.append(name)
        text = "\n".join(["Undo complete:", *(f"Restored: {name}" for name in restored)])
        if self.dialect is Dialect.RECORDED:
            return Reply(text)
        shown = [self.render(self.files[name]) for name in dict.fromkeys(restored)]
        short = () if len(restored) == count else (f"only {len(restored)} edit(s) could be taken back, not {count}.",)
        return Reply("\n\n".join([text, *shown, *(f"WARNING: {line}" for line in short)]), warnings=short)

    # -- to keep or rebuild a workspace ---------------------------------------------------------------------------

    def copy(self) -> Editor:
        """Return an independent editor in the same state, to try a call on."""
        files = {name: EditableFile(name, list(file.lines), list(file.ranges)) for name, file in self.files.items()}
        draft = Editor(files, self.dialect, self.advise)
        draft._undo = list(self._undo)
        return draft

    def resynchronise(self, file: EditableFile) -> None:
        """Replace the file of that name by `file` without an entry in the undo stack."""
        self.files[file.name] = file

    def remember(self, name: str, lines: Sequence[str], ranges: Sequence[Range]) -> None:
        """Push a former state of a file onto the undo stack, as an accepted edit does."""
        self._undo.append((name, list(lines), list(ranges)))

    # -- implementation ---------------------------------------------------------------------------------------------

    def _target(self, arguments: Mapping[str, object]) -> EditableFile:
        name = arguments.get("filename")
        if name is None and self.dialect is Dialect.OURS and len(self.files) == 1:
            return next(iter(self.files.values()))
        if not isinstance(name, str):
            raise _invalid(f"filename must be a string, not {name!r}")
        hint = f"The editable file is {', '.join(self.files)}."
        package = name.split("/", 1)[0]
        if package not in {known.split("/", 1)[0] for known in self.files}:
            text = f"ERROR: Package '{package}' is not in allowed packages"
            raise _RefusedError(text, "not_allowed", hint=hint)
        if name not in self.files:
            if arguments.get("op") == "create":
                return next(iter(self.files.values()))
            raise _RefusedError(f"ERROR: File not editable: {name}", "not_allowed", hint=hint)
        return self.files[name]

    def _file_for_tool(self, tool: str, filename: str | None) -> EditableFile:
        file = next(iter(self.files.values()), None) if filename is None else self.files.get(filename)
        if file is None:
            detail = f"no file {filename!r}; there is {', '.join(self.files) or 'none'}"
            raise _RefusedError(invalid_arguments(tool, detail).text, "invalid_arguments")
        return file

    def _replace(self, file: EditableFile, arguments: Mapping[str, object]) -> Reply:
        first, last = (self._line(file, arguments, key) for key in ("start_line", "end_line"))
        if first > last and not any((r.start, r.end) == (first, last) for r in file.ranges):
            raise _invalid(f"start_line {first} comes after end_line {last}", file)
        if not any(r.start <= first and last <= r.end for r in file.ranges):
            allowed = self._ranges_text(file)
            text = f"ERROR: Lines {first}..{last} exceed the editable range. You may only edit lines {allowed}."
            raise _RefusedError(text, "outside_region", file)
        new = self._content(arguments.get("content"), file, "edit")
        done = f"OK: Replaced lines {first}..{last} with {len(new)} line(s) in {file.name}."
        return self._apply(file, first, last, new, done)

    def _insert(self, file: EditableFile, arguments: Mapping[str, object]) -> Reply:
        after = self._line(file, arguments, "after_line")
        # The recorded harness requires the first new line's number inside the range as it was before.
        beyond = 1 if self.dialect is Dialect.OURS else 0
        if not any(r.start <= after + 1 <= r.end + beyond for r in file.ranges):
            text = (
                f"ERROR: Cannot insert after line {after} — target is outside the editable range. "
                f"You may only edit lines {self._ranges_text(file)}."
            )
            raise _RefusedError(text, "outside_region", file)
        new = self._content(arguments.get("content"), file, "edit")
        done = f"OK: Inserted {len(new)} line(s) after line {after} in {file.name}."
        return self._apply(file, after + 1, after, new, done)

    def _apply(self, file: EditableFile, first: int, last: int, new: Sequence[str], done: str) -> Reply:
        self.remember(file.name, file.lines, file.ranges)
        file.lines = list(file.lines)
        file.replace(first, last, new)
        if self.dialect is Dialect.RECORDED:
            file.ranges = [r for r in file.ranges if not r.empty]
        warnings = tuple(self.advise(file)) if self.advise else ()
        text = f"{done} Editable range: {self._ranges_text(file)}."
        return Reply(self._compose(text, file, [f"WARNING: {warning}" for warning in warnings]), warnings=warnings)

    def _refusal(self, refused: _RefusedError) -> Reply:
        below = [refused.hint] if refused.hint else []
        return Reply(self._compose(refused.text, refused.file, below), ok=False, kind=refused.kind)

    def _compose(self, text: str, file: EditableFile | None, below: Sequence[str]) -> str:
        shown = [self.render(file)] if file is not None and file.ranges else []
        return "\n\n".join([text, *shown, *(below if self.dialect is Dialect.OURS else [])])

    def _line(self, file: EditableFile, arguments: Mapping[str, object], key: str) -> int:
        if key not in arguments:
            raise _invalid(f"{key} is missing", file)
        number = _as_line_number(arguments[key])
        if number is None:
            raise _invalid(f"{key} must be a whole line number, not {arguments[key]!r:.60}", file)
        return number

    def _content(self, content: object, file: EditableFile, tool: str) -> list[str]:
        def refuse(detail: str, kind: ReplyKind = "invalid_arguments") -> _RefusedError:
            return _RefusedError(invalid_arguments(tool, detail).text, kind, file)

        if not isinstance(content, str):
            raise refuse(f'content must be a string ("" for no lines), not {type(content).__name__}')
        if "\0" in content:
            raise refuse("content has a NUL byte, which no Python source may hold")
        try:
            size = len(content.encode())
        except UnicodeEncodeError as error:
            raise refuse(f"content has half a surrogate pair at character {error.start}") from error
        if size > MAX_EDIT_BYTES:
            raise refuse(
                f"content is {size:,} bytes, more than the {MAX_EDIT_BYTES:,} that one edit may hold", "too_large"
            )
        return split_lines(unify_newlines(content) if self.dialect is Dialect.OURS else content)

    def _ranges_text(self, file: EditableFile) -> str:
        return ", ".join(map(_describe, file.ranges)) if file.ranges else "(none)"

    def render(self, file: EditableFile) -> str:
        """Return the first editable range and three fixed lines on each side: number, `|` if fixed, text."""
        if not file.ranges:
            return f"[Current file: {file.name} | editable: (none) | total: {len(file.lines)} lines]"
        shown = file.ranges[0]
        first = max(1, shown.start - _CONTEXT_LINES)
        last = min(len(file.lines), shown.end + _CONTEXT_LINES)
        head = f"[Current file: {file.name} | editable: {_describe(shown)} | total: {len(file.lines)} lines]"
        body = (
            f"{number:>6}{' ' if shown.start <= number <= shown.end else '|'} {file.lines[number - 1]}"
            for number in range(first, last + 1)
        )
        return "\n".join([head, *body])


def _describe(editable: Range) -> str:
    return f"{editable} (empty: insert after line {editable.end})" if editable.empty else str(editable)


def _as_line_number(value: object) -> int | None:
    """Read 12, 12.0 and "12" as 12. Return None for anything else, such as booleans and numbers over 9 digits."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if abs(value) < 1e9 and value == int(value) else None
