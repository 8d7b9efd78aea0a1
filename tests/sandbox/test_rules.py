"""What the free checks say of a region, and what an author is told while editing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.editing import Editor
from sandbox.parsing import MAX_REGION_BYTES
from sandbox.region import SCAFFOLD_NAME, scaffold
from sandbox.rules import advise, check_region

HEAD = "def initialize_weights(model, config):\n"
OWN_RUN = Path(__file__).resolve().parents[2] / "../shared/transcripts/dl-weight-initialization__deepseek-reasoner.json"


@pytest.mark.parametrize(
    "region",
    [
        scaffold().region,
        HEAD + "    pass",
        "import math\nfrom torch.nn import functional as F\n\nGAIN: float = math.sqrt(2)\n\n\n"
        '"""notes"""\n\nclass Helper:\n    pass\n\n\n@torch.no_grad()\n'
        + HEAD
        + "    return None\n\n\ndef later():\n    pass\n",
        "def initialize_weights(model: nn.Module, config: dict, gain=2.0, *, extra=None, **rest) -> None:\n    pass\n",
        HEAD + "    name = type(model).__name__ + model.__class__.__doc__\n    model.load = torch.linalg.qr\n",
        HEAD + "    import numpy as np\n    from torch import nn, linalg\n    import torch.nn.init as init\n",
        HEAD + r'    """A docstring with \d."""' + "\n",
    ],
)
def test_honest_regions_pass(region: str) -> None:
    assert check_region(region) is None


@pytest.mark.skipif(not OWN_RUN.is_file(), reason="the recorded run of our own task (../shared/transcripts) is absent")
def test_the_five_recorded_strategies_pass() -> None:
    messages = json.loads(OWN_RUN.read_text(encoding="utf-8"))["messages"]
    regions = [message["tool_input"]["content"] for message in messages if message.get("tool_name") == "edit"]
    assert [check_region(region) for region in regions] == [None] * 5


@pytest.mark.parametrize(
    ("region", "kind", "line", "complaint"),
    [
        ("", "signature", None, "must define initialize_weights(model, config)"),
        ("def init(model, config):\n    pass\n", "signature", None, "must define initialize_weights(model, config)"),
        ("if True:\n    " + HEAD + "        pass\n", "signature", None, "at its top level"),
        (HEAD + "    pass\n" + HEAD + "    pass\n", "signature", 103, "defined 2 times (lines 101 and 103)"),
        (HEAD + "    pass\ninitialize_weights = None\n", "signature", 103, "defined 2 times"),
        ("initialize_weights = print\n", "signature", 101, "must be a plain function"),
        ("async " + HEAD + "    pass\n", "signature", 101, "must be a plain function"),
        ("class initialize_weights:\n    pass\n", "signature", 101, "must be a plain function"),
        ("def initialize_weights(model):\n    pass\n", "signature", 101, "not (model)"),
        ("def initialize_weights(config, model):\n    pass\n", "signature", 101, "not (config, model)"),
        ("def initialize_weights(*args):\n    pass\n", "signature", 101, "not ()"),
        ("def initialize_weights(model, config, gain):\n    pass\n", "signature", 101, "need default values"),
        ("def initialize_weights(model, config, *, gain):\n    pass\n", "signature", 101, "need default values"),
        (HEAD + "    x = (\n", "syntax", 102, "line 102: '(' was never closed"),
        (HEAD + "  x\n y\n", "syntax", 103, "unindent"),
        (HEAD + "    pass\nreturn 3\n", "syntax", 103, "'return' outside function"),
        (HEAD + "    x = '\0'\n", "syntax", 102, "NUL byte"),
        (HEAD + "    x = '\ud800'\n", "syntax", None, "surrogates"),
        (HEAD + "    pass\nprint('hi')\n", "isolation", 103, "not 'print('hi')'"),
        (HEAD + "    pass\nfor i in ():\n    pass\n", "isolation", 103, "top level"),
        ("import os\n" + HEAD + "    pass\n", "isolation", 101, "os cannot be imported; available: cmath"),
        (HEAD + "    import os.path\n", "isolation", 102, "os cannot be imported"),
        (HEAD + "    from torch import hub\n", "isolation", 102, "torch.hub"),
        (HEAD + "    from torch.utils import data\n", "isolation", 102, "torch.utils"),
        (HEAD + "    import random\n", "isolation", 102, "use torch for random numbers"),
        (HEAD + "    from benchmark.models import BasicBlock\n", "isolation", 102, "in scope already"),
        (HEAD + "    from . import train\n", "isolation", 102, "relative imports"),
        (HEAD + "    open('x')\n", "isolation", 102, "open is not available"),
        (HEAD + "    x = eval\n", "isolation", 102, "eval is not available"),
        (HEAD + "    torch.load('x')\n", "isolation", 102, "torch.load is not available"),
        (HEAD + "    torch.os.system('x')\n", "isolation", 102, "torch.os is not available"),
        (HEAD + "    np.fromfile('x')\n", "isolation", 102, "np.fromfile is not available"),
        (HEAD + "    model.__class__.__mro__\n", "isolation", 102, "access to __mro__"),
        (HEAD + "    a = open\n    import os\n", "isolation", 102, "open is not available"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(region: str, kind: str, line: int | None, complaint: str) -> None:
    """Line numbers are those of the file that the author sees, whose region begins at line 101 here."""
    rejection = check_region(region, first_line=101)
    assert rejection is not None
    assert (rejection.kind, rejection.line) == (kind, line)
    assert complaint in rejection.message
    assert line is None or str(line) in rejection.message


@pytest.mark.parametrize(
    "region", ["(" * 9000, "-" * 9000 + "1", "1" + "+1" * 6000, "x=" * 3000 + "1", "[" * 90 + "]" * 90]
)
def test_absurdly_deep_code_is_refused_and_crashes_nothing(region: str) -> None:
    """Python's own parser gives up in several ways, which differ from version to version."""
    rejection = check_region(region)
    assert rejection is not None
    assert rejection.kind in ("syntax", "signature")


def test_sixteen_kilobytes_are_enough_for_anybody_who_computes() -> None:
    """Bytes count, not characters, and one more than the limit is too many."""
    region = HEAD + "    pass\n#"
    assert check_region(region + "x" * (MAX_REGION_BYTES - len(region))) is None
    rejection = check_region(region + "x" * (MAX_REGION_BYTES - len(region) + 1))
    assert rejection is not None
    assert rejection.kind == "too_large"
    assert "16,385 bytes; at most 16,384" in rejection.message
    assert check_region(region + "é" * (MAX_REGION_BYTES // 2)) is not None


def _edit(content: str, last: int | None = None) -> tuple[str, ...]:
    file = scaffold().editable()
    editable = file.ranges[0]
    machine = Editor.of(file, advise=advise)
    return machine.edit(
        {
            "op": "replace",
            "filename": SCAFFOLD_NAME,
            "start_line": editable.start,
            "end_line": last or editable.end,
            "content": content,
        }
    ).warnings


def test_a_stale_tail_is_noticed() -> None:
    """Replacing only the first lines of a function leaves its old tail behind: the commonest mistake of all."""
    start = scaffold().lines.start
    broken = _edit(HEAD + "    pass\n", last=start + 2)
    assert len(broken) == 1
    assert f"(syntax): line {start + 2}: unexpected indent" in broken[0]

    twice = _edit(HEAD + "    pass\n\n\n" + HEAD + "    pass\n")
    assert f"(signature): initialize_weights is defined 2 times (lines {start} and {start + 4})" in twice[0]

    silent = _edit(HEAD + "    return\n", last=start + 1)
    assert silent == (
        f"lines {start + 2}..{scaffold().lines.end} stand after the end of initialize_weights in line {start + 1} "
        "and never run.",
    )


def test_a_good_edit_gets_no_warning_and_an_emptied_region_does() -> None:
    assert _edit(HEAD + "    pass\n") == ()
    assert _edit("") == (
        "a test would be refused now (signature): the region must define initialize_weights(model, config) at its top "
        "level.",
    )


def test_text_that_makes_the_compiler_explode_is_refused_before_it_is_compiled() -> None:
    """Nested finally clauses doubled with each level: 700 bytes filled the memory of the trusted process."""
    levels = "".join(f"{' ' * depth}try: pass\n{' ' * depth}finally:\n" for depth in range(1, 40))
    bomb = f"def initialize_weights(model, config):\n{levels}{' ' * 40}pass\n"
    rejection = check_region(bomb)
    assert rejection is not None
    assert rejection.kind == "too_large"
    ways_out = (
        "def initialize_weights(model, config):\n try:\n" + "  return\n" * 800 + " finally:\n" + "  x;x;x;x\n" * 800
    )
    rejection = check_region(ways_out)
    assert rejection is not None
    assert rejection.kind == "too_large"
    honest = (
        "def initialize_weights(model, config):\n    state = torch.get_rng_state()\n    try:\n"
        "        return\n    finally:\n        torch.set_rng_state(state)\n"
    )
    assert check_region(honest) is None
