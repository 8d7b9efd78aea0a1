"""Texts that are small to read and huge to compile: each is refused in the child that compiles, not felt here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import parsing
from sandbox.parsing import CompilerUnavailableError, TooCostlyError, parse

ROOT = Path(__file__).resolve().parents[2]
REGIONS = ROOT / "tests" / "attacks" / "regions" / "python"
HEAD = "def initialize_weights(model, config):\n    pass\n"
MAX_GROWTH = 200 << 10
"""kB of memory by which the trusted process may grow."""

BOMBS = {
    **{
        name: (REGIONS / f"{name}.py.txt").read_text(encoding="utf-8")
        for name in ("compiler_bomb", "parser_bomb", "folded_constants", "long_import", "endless_elif", "deep_loops")
    },
    "folded text, small": HEAD + "X = '😀'*4096" + "+'😀'*4096" * 200,
    "folded text, large": HEAD + "X = '😀'*4096" + "+'😀'*4096" * 850,
    "folded bytes": HEAD + "X = b'a'*4096" + "+b'a'*4096" * 850,
    "folded tuples": HEAD + "X = (1,)*256" + "+(1,)*256" * 1300,
    "folded in functions": HEAD + "".join(f"def f{i}():\n  return 'é'*4000+'é'*4000+'é'*4000\n" for i in range(300)),
    "powers": HEAD + "X = 9**9**9**9",
    "powers of powers": HEAD + "X = " + "(2**63)*" * 1500 + "1",
    "shifts": HEAD + "X = 1" + "<<127" * 2000,
    "repeated tuple": HEAD + "X = (1,) * 10**9",
    "formatted": HEAD + "X = '%1000000000d' % 1",
    "digits": HEAD + "X = " + "9" * 15000,
    "hexadecimal digits": HEAD + "X = 0x" + "f" * 15000,
    "brackets": "(" * 16000,
    "calls": HEAD + "X = " + "f(" * 190 + "1 2" + ")" * 190,
    "minus": HEAD + "X = " + "-" * 15000 + "1",
    "not": HEAD + "X = " + "not " * 3800 + "1",
    "attributes": HEAD + "X = a" + ".b" * 7500,
    "sum": HEAD + "X = 1" + "+a" * 7500,
    "comparisons": HEAD + "X = 1" + "<1" * 7500,
    "lambdas": HEAD + "X = " + "lambda:" * 2000 + "1",
    "walrus": HEAD + "X = [" + "(a:=1)," * 2200 + "]",
    "targets": HEAD + "a=" * 7500 + "1",
    "f-strings": HEAD + "X = f'" + "{a}" * 5000 + "'",
    "nested f-strings": HEAD + "X = " + "f'{" * 100 + "1" + "}'" * 100,
    "decorators": "@a\n" * 5000 + HEAD,
    "elif": HEAD + "def f():\n  if a: 0\n" + "  elif a: 0\n" * 1300,
    "match": HEAD + "def f():\n match a:\n  case " + "a|" * 7000 + "a: 0",
    "match, nested": HEAD + "def f():\n match a:\n  case " + "[" * 190 + "]" * 190 + ": 0",
    "finally": HEAD
    + "def f():\n"
    + "".join(f"{' ' * d}try: 0\n{' ' * d}finally:\n" for d in range(1, 60))
    + " " * 60
    + "0",
    "with": HEAD + "def f():\n with " + "a as b," * 2000 + "a: 0",
    "parameters": HEAD + "def f(" + ",".join(f"a{i}" for i in range(2500)) + "): 0",
    "statements": HEAD + "a;" * 8000,
}

MEASURE = """
import json, sys
from agent.report.flags import code_flags
from agent.spaces.literals import ScaleCommentError, find_numbers
from agent.studies.parts import _code
from sandbox.rules import check_region

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

check_region("x = 1")
start, said = peak(), {}
for name, text in json.load(sys.stdin).items():
    rejection = check_region(text)
    code_flags(text), _code(text)
    try:
        find_numbers(text)
    except (SyntaxError, ScaleCommentError):
        pass
    said[name] = [rejection and rejection.kind, peak() - start]
print(json.dumps(said))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_no_text_of_a_region_takes_much_memory_of_this_process() -> None:
    """Three kilobytes took 460 MB and thirteen 9 GB of the trusted process: its compiler had folded constants."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input=json.dumps(BOMBS),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=True,
    )
    said = json.loads(done.stdout)
    assert max(growth for _, growth in said.values()) < MAX_GROWTH
    for name in ("compiler_bomb", "folded_constants", "folded text, large", "finally"):
        assert said[name][0] == "too_large", name


def test_after_a_bomb_the_next_text_is_compiled_as_ever() -> None:
    """A text that ends the child costs its own verdict only; texts that do not share one child."""
    parse("x = 1")
    first = parsing._child._process
    with pytest.raises(TooCostlyError, match="do not nest finally clauses"):
        parse(BOMBS["finally"])
    assert parse("x = 2").body
    assert first is not None
    second = parsing._child._process
    parse("x = 3")
    assert parsing._child._process is second


def test_a_child_that_was_killed_is_replaced() -> None:
    """The kernel may end any process when memory is short; the next region is judged all the same."""
    parse("x = 4")
    process = parsing._child._process
    assert process is not None
    process.kill()
    process.wait()
    assert parse("x = 5").body


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = 1\nreturn 3\n", 2, "'return' outside function"),
        ("nonlocal x\n", 1, "nonlocal declaration not allowed at module level"),
        ("\n\ndef f(a, a): pass\n", 3, "duplicate argument 'a'"),
        ("def f():\n    x = 1\n    global x\n", 3, "assigned to before global"),
        ("break\n", 1, "'break' outside loop"),
    ],
)
def test_what_only_the_compiler_finds_has_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(SyntaxError, match=message) as error:
        parse(text)
    assert error.value.lineno == line


def test_more_than_sixteen_kilobytes_are_never_parsed() -> None:
    with pytest.raises(TooCostlyError, match="16,385 bytes"):
        parse("#" * 16_385)


def test_a_machine_without_room_for_the_child_is_no_fault_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every region would be refused otherwise, as if it were a bomb."""
    parsing._child.close()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CompilerUnavailableError):
        parse("x = 6")
    monkeypatch.undo()
    assert parse("x = 6").body
