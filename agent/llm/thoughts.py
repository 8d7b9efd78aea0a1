"""Separates what a model thought from what it answers, where a server leaves both in one text.

Everything before the last closing mark is thought, whether or not an opening mark came: many chat templates put the
opening mark into the prompt. After an opening mark that is never closed everything is thought. A mark in a string or
a comment of a closed, fenced Python block is part of that code and separates nothing.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator

from agent.llm.fences import block_at, next_fence

_NAME = r"[\w:-]{0,20}(?:think|thought|reasoning|scratchpad|monologue)[\w:-]{0,20}(?:\s[^<>\n]{0,100})?\s?"
_MARK = re.compile(
    rf"(?P<open><\|?\s?(?!end){_NAME}\|?>|\[THINK\]|◁think▷|<\|inner_prefix\|>"
    r"|<\|channel>\s?(?:thought|thinking|analysis)?)"
    rf"|(?P<close><\|?\s?(?:/\s?|end_(?:of_)?){_NAME}\|?>|\[/THINK\]|◁/think▷|<\|inner_suffix\|>|<channel\|>(?:final\b)?"
    r"|<\|end\|><\|begin\|>assistant<\|content\|>)",
    re.IGNORECASE,
)
_CHANNEL = re.compile(
    r"(?:\bto=(?P<to>[\w.-]{1,100})\s{0,9})?<\|channel\|>\s{0,9}(?P<name>\w{1,100})(?P<header>[^<\n]{0,200})"
    r"(?:<\|constrain\|>\w{1,20}\s{0,9})?<\|message\|>"
)
_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_START = re.compile(r"<\|(?:end|start|return|call)\|>(?:assistant\b[ \t]*(?:to=[\w.-]{1,100})?)?")
_ANSWER = re.compile(r"^\s*(?:(?:<response>|<answer>|<\|begin_of_solution\|>|<\|START_RESPONSE\|>)\s*)?")
_BARE_CHANNELS = re.compile(r"assistant(final|commentary|analysis)")
_TEXTS = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def split_thoughts(text: str) -> tuple[str, str]:
    """The thought and the answer in a text, without their marks. The work grows in proportion to the text."""
    channels, text = _split_channels(text)
    marks = list(_marks_outside_code(text))
    if not marks:
        return channels, text
    closing = max((number for number, mark in enumerate(marks) if mark["close"]), default=-1)
    before, start = (text[: marks[closing].start()], marks[closing].end()) if closing >= 0 else ("", 0)
    opening = next((mark for mark in marks[closing + 1 :] if mark["open"]), None)
    answer, after = (text[start:], "") if opening is None else (text[start : opening.start()], text[opening.end() :])
    return _joined(channels, _MARK.sub("", before), _MARK.sub("", after)), _ANSWER.sub("", answer, count=1)


def _joined(*parts: str) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _marks_outside_code(text: str) -> Iterator[re.Match[str]]:
    if _MARK.search(text) is None:
        return
    code = list(_code_spans(text))
    current = 0
    for mark in _MARK.finditer(text):
        while current < len(code) and code[current][1] <= mark.start():
            current += 1
        if current == len(code) or mark.start() < code[current][0]:
            yield mark


def _code_spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each string and comment with a mark in the closed Python blocks."""
    broken = _MARK.sub(lambda mark: " " * (len(mark[0]) - 1) + "\n", text)  # a block may follow a mark on its line
    position = 0
    while (fence := next_fence(broken, position)) is not None:
        block = block_at(broken, fence)
        position = block.end
        if not block.closed:
            return
        if block.is_python and _MARK.search(text, block.body_start, block.body_end):
            for start, end in _texts(text[block.body_start : block.body_end]):
                yield block.body_start + start, block.body_start + end


def _texts(code: str) -> Iterator[tuple[int, int]]:
    """Start and end of the strings and comments with a mark, up to the first place that is no Python."""
    lines = [0]
    for line in io.StringIO(code):
        lines.append(lines[-1] + len(line))
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.ERRORTOKEN:
                return
            if token.type in _TEXTS and _MARK.search(token.string):
                (row, column), (last, end) = token.start, token.end
                yield lines[row - 1] + column, lines[last - 1] + end
    except (tokenize.TokenError, SyntaxError, IndexError):
        return


def _split_channels(text: str) -> tuple[str, str]:
    """The same for the channels of the harmony format: `analysis` is thought, and a call keeps its header."""
    opened = list(_CHANNEL.finditer(text))
    if not opened:
        return _split_bare_channels(text)
    before = text[: opened[0].start()]
    # A message that ended before the first channel began had its own header in the prompt: it was the analysis.
    thought, _, said = before.rpartition("<|end|>")
    thoughts, answers = [_START.sub("", thought)], [_START.sub("", said)]
    for channel, following in zip(opened, [*opened[1:], None], strict=True):
        limit = following.start() if following else len(text)
        end = _END.search(text, channel.end(), limit)
        body = text[channel.end() : end.start() if end else limit]
        if channel["to"] or "to=" in channel["header"]:
            answers.append(f"{channel[0]}{body}<|call|>")
        else:
            (thoughts if channel["name"] == "analysis" else answers).append(body)
        answers.append(_START.sub("", text[end.start() : limit]) if end else "")
    return _joined(*thoughts), _joined(*answers)


def _split_bare_channels(text: str) -> tuple[str, str]:
    """The same where the server removed the marks: `analysis…assistantcommentary to=functions.test {}`."""
    if not re.match(r"\s*analysis(?![a-z])", text):
        return "", text
    first, *rest = _BARE_CHANNELS.split(text.lstrip().removeprefix("analysis"))
    channels = list(zip(rest[::2], rest[1::2], strict=True))
    if not channels:
        return "", text
    thoughts = [body for name, body in channels if name == "analysis"]
    return _joined(first, *thoughts), _joined(*(body for name, body in channels if name != "analysis"))
