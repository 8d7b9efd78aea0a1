"""Numbers in code: which are found, with which range, and that nothing else changes when they do."""

from __future__ import annotations

import ast
import io
import math
import tokenize

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.spaces.builtin import first_points
from agent.spaces.literals import (
    ScalableNumber,
    ScaleCommentError,
    UnknownNumberError,
    current,
    distributions,
    find_numbers,
    readable,
    rescale,
)
from agent.spaces.rendering import render
from benchmark.recipes import RECIPES, get_recipe

REGION = '''\
LEVEL = 0.7


def damp(weight, factor=0.25, *, keep=3, power=1.5):
    """Not 0.5, not gain = 2.5."""
    return weight * factor**-0.5 + len("0.5") ** 0.25


def initialize_weights(model, config):
    gain = 1.5  # scale: 0.35..2.83 log
    beta: float = -0.1
    off, count = 0.0, 2
    gain = 3.0  # γ × 0.5 in a comment; scale: not a scale comment
    eps = 1e-5  # scale: off
    self.slope = +2e-2
    nn.init.normal_(model.weight, std=0.01)
    nn.init.normal_("γ×½", 0.03)  # scale: 0.01..0.1
    print(f"{0.5 ** 0.5} {(y := 0.25)}", math.pow(2, 0.75), model.weight.pow(1e0))
    beta *= 0.5
'''


def found(region: str) -> dict[str, ScalableNumber]:
    return {number.name: number for number in find_numbers(region)}


def test_numbers_are_found_by_where_they_stand() -> None:
    """Assigned floats, defaults and exponents are numbers; integers, texts, comments and plain arguments are not."""
    values = {name: number.value for name, number in found(REGION).items()}
    assert values == {
        "LEVEL": 0.7,
        "factor": 0.25,
        "power": 1.5,
        "factor_exponent": -0.5,
        "exponent": 0.25,
        "gain": 1.5,
        "beta": 0.1,
        "gain_2": 3.0,
        "slope": 0.02,
        "number": 0.03,
        "exponent_2": 0.75,
        "exponent_3": 1.0,
        "beta_2": 0.5,
    }


def test_ranges_follow_the_comment_or_the_kind_of_number() -> None:
    """A comment fixes range and law; else ×¼…×4 in logarithms, and ±1 for an exponent."""
    numbers = found(REGION)
    ranges = {name: (number.low, number.high, number.log) for name, number in numbers.items()}
    assert ranges["gain"] == (0.35, 2.83, True)
    assert ranges["gain_2"] == (0.75, 12.0, True)
    assert ranges["number"] == (0.01, 0.1, True)
    assert ranges["factor_exponent"] == (-1.5, 0.5, False)
    assert ranges["beta"] == (0.025, 0.4, True)


def test_positions_count_characters_on_lines_with_other_alphabets() -> None:
    """Greek letters before a number do not shift where it is written."""
    for number in find_numbers(REGION):
        assert float(REGION[number.start : number.end]) == number.value
        assert REGION[: number.start].count("\n") == number.line - 1


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        ("x = -0.5\n", {"x": 0.25}, "x = -0.25\n"),
        ("x = -0.5  # scale: -1..1 linear\n", {"x": 0.25}, "x = 0.25  # scale: -1..1 linear\n"),
        ("x = -(0.5)  # scale: -1..1\n", {"x": 0.25}, "x = 0.25  # scale: -1..1\n"),
        ("x = n ** -0.5\n", {"n_exponent": 0.25}, "x = n ** 0.25\n"),
        ("x = n**0.5\n", {"n_exponent": -0.25}, "x = n**-0.25\n"),
        ("f(0.5**2)  # scale: -1..1\n", {"number": -0.25}, "f((-0.25)**2)  # scale: -1..1\n"),
        ("def f(): return-0.5  # scale: -1..1\n", {"number": 0.25}, "def f(): return 0.25  # scale: -1..1\n"),
        ("x = 0.0  # scale: 0..1\n", {"x": 1.0}, "x = 1.0  # scale: 0..1\n"),
        ("x = 0.50\ny = 1e0\n", {"x": 0.5, "y": 1.0}, "x = 0.50\ny = 1e0\n"),
        ("x, y = 0.5, 1.5\r\n", {"y": 123.4567}, "x, y = 0.5, 123.5\r\n"),
        ("gain = 2.0;gain = 3.0", {"gain_2": 1e-7, "gain": 4.0}, "gain = 4.0;gain = 1e-07"),
    ],
)
def test_numbers_are_written_back_as_a_person_would(before: str, values: dict[str, float], after: str) -> None:
    """Signs, powers, keywords and line ends survive; an unchanged number keeps its spelling."""
    assert rescale(before, values) == after


def test_zero_and_what_cannot_be_scaled_are_left_alone() -> None:
    """A zero, an infinity and a number whose range would overflow have no default range."""
    assert not find_numbers("a = 0.0\nb = -0.0\nc = 1e999\nd = 1e308\ne = 5e-324\nf = 2\ng = True\nh = 1.5j\n")
    assert found("a = n ** 0.0\n")["n_exponent"].low == -1


def test_names_stay_apart() -> None:
    """A suffix never collides with a name that is there already."""
    names = [number.name for number in find_numbers("x = 0.1\nx_2 = 0.2\nx = 0.3\n")]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("0.5", r"line 2: cannot read the range '0\.5'"),
        ("0..1 log", "must begin above zero"),
        ("2..1 linear", "is empty"),
        ("0.1..x", "cannot read"),
        ("0.1..inf", "cannot read"),
        ("0.1..1 cubic", "cannot read"),
    ],
)
def test_a_comment_that_cannot_be_understood_is_an_error(comment: str, message: str) -> None:
    """A typing mistake in a range is named with its line and the right form, not silently replaced by the default."""
    with pytest.raises(ScaleCommentError, match=message) as error:
        find_numbers(f"\nx = 0.5  # scale: {comment}\n")
    assert "# scale: 0.05..1 log" in str(error.value)


def test_wrong_values_are_refused() -> None:
    """Unknown names get a suggestion; NaN never reaches the code; broken code is a SyntaxError."""
    with pytest.raises(UnknownNumberError, match="did you mean 'gain'"):
        rescale("gain = 0.5\n", {"gian": 1.0})
    with pytest.raises(ValueError, match="gain must be a finite number"):
        rescale("gain = 0.5\n", {"gain": math.nan})
    for broken in ("def f(:\n", "x = (0.5\n", "x = '''\n", "  x = 1\n y = 2\n"):
        with pytest.raises(SyntaxError):
            find_numbers(broken)
    assert find_numbers("") == []


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_can_be_scaled(name: str) -> None:
    """Every recipe of the library has usable ranges that contain its own values."""
    region = get_recipe(name).region
    for number in find_numbers(region):
        assert number.low <= number.value <= number.high
    assert rescale(region, current(find_numbers(region))) == region


def test_the_built_in_strategy_can_be_scaled_again() -> None:
    """A rendered strategy offers exactly the numbers at its top, so a hybrid search can go on from it."""
    assert [number.name for number in find_numbers(render(first_points()[0]))] == [
        "branch_exponent",
        "last_gamma",
        "head_scale",
    ]


def test_optuna_scales_a_region() -> None:
    """A study enqueues the unscaled region first, then proposes others within the ranges."""
    numbers = find_numbers(REGION)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(current(numbers))
    assert rescale(REGION, study.ask(distributions(numbers)).params) == REGION
    asked = study.ask(distributions(numbers))
    assert all(number.low <= asked.params[number.name] <= number.high for number in numbers)
    assert rescale(REGION, asked.params) != REGION


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_readable_numbers_are_short_float_literals(value: float) -> None:
    """Whatever is written reads back as a float with four significant digits."""
    text = readable(value)
    assert isinstance(ast.literal_eval(text), float)
    assert float(text) == pytest.approx(value, rel=1e-3, abs=1e-300) or abs(value) > 1.79e308
    assert len(text.lstrip("-")) <= 10


_values = st.floats(min_value=1e-6, max_value=1e6).map(lambda value: float(f"{value:.4g}"))


_LINES = (
    "{name} = {literal}",
    "{name} = -{literal}",
    "{name} = ( - {literal} )  # scale: -2..3 linear",
    "{name}: float = +{literal}  # a comment",
    "{name} = 'γ×½ 0.5'; {name} = {literal}",
    "{name} = width**-{literal}",
    "{name} = (width ** {literal}, 0.5 * 2.5)",
    "f('é', {literal}**2, {name}=3)  # scale: 0.01..100",
    "def {name}(a, b={literal}): return -{literal}  # scale: -5..5",
    "{name} *= {literal}",
    "{name} = {literal}  # scale: off",
)
_literals = st.sampled_from(["0.5", ".25", "1e-3", "1_0.5", "3.", "0.0", "12.50", "7E2"])
_line = st.builds(str.format, st.sampled_from(_LINES), name=st.sampled_from("abé"), literal=_literals)
_regions = st.builds(
    lambda lines, end: end.join([*lines, ""]), st.lists(_line, max_size=8), st.sampled_from(["\n", "\r\n"])
)


@given(st.data())
def test_rescaling_changes_numbers_and_nothing_else(data: st.DataObject) -> None:
    """The text between the numbers stays byte-equal, and the same numbers are found again with their new values."""
    region = data.draw(st.sampled_from([REGION, *(get_recipe(name).region for name in RECIPES)]) | _regions)
    numbers = find_numbers(region)
    values = data.draw(st.fixed_dictionaries({}, optional={number.name: _values for number in numbers}))
    changed = rescale(region, values)
    after = find_numbers(changed)
    assert [number.name for number in after] == [number.name for number in numbers]
    for old, new in zip(numbers, after, strict=True):
        assert new.value == values.get(old.name, old.value)
    assert _between(region, numbers) == _between(changed, after)
    assert _kinds(region) == _kinds(changed)


def _between(region: str, numbers: list[ScalableNumber]) -> list[str]:
    edges = [0, *(edge for number in numbers for edge in (number.start, number.end)), len(region)]
    return [region[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _kinds(region: str) -> list[str]:
    """The program's shape: its tokens, without the signs and values of numbers."""
    tokens = tokenize.generate_tokens(io.StringIO(region).readline)
    return ["number" if token.type == tokenize.NUMBER else token.string for token in tokens if token.string != "-"]
