"""The scaffold in three parts, and what counts as a region."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.region import (
    FUNCTION,
    MarkersNotFoundError,
    OutsideRegionError,
    RegionError,
    normalise_region,
    region_of,
    scaffold,
    split,
)

REGION = "def initialize_weights(model, config):\n    pass\n"


def test_the_parts_make_the_file_and_the_region_is_the_function() -> None:
    ours = scaffold()
    assert split(ours.text) == ours
    assert ours.region.startswith(f"def {FUNCTION}(")
    assert ours.region.endswith("\n")
    assert not ours.region.endswith("\n\n")
    assert f"def {FUNCTION}" not in ours.prefix + ours.suffix
    assert ours.prefix_sha256 == hashlib.sha256(ours.prefix.encode()).hexdigest()
    assert ours.suffix_sha256 == hashlib.sha256(ours.suffix.encode()).hexdigest()
    lines = ours.text.split("\n")[ours.lines.start - 1 : ours.lines.end]
    assert "\n".join(lines) + "\n" == ours.region


@given(st.text())
def test_any_region_goes_in_and_comes_out(text: str) -> None:
    """The fixed parts stay byte for byte the same around whatever an author writes, markers included."""
    ours = scaffold()
    changed = ours.with_region(text)
    assert (changed.prefix, changed.suffix) == (ours.prefix, ours.suffix)
    assert ours.region_in(changed.text) == changed.region == normalise_region(text)
    assert changed.editable().range_text() == changed.region
    assert changed.editable().text == changed.text


def test_a_region_that_contains_the_markers_cannot_move_them() -> None:
    ours = scaffold()
    begin, end = (line for line in ours.text.split("\n") if line.startswith("# ==== EDITABLE REGION"))
    hostile = f"{begin}\nx = 1\n{end}\n"
    assert split(ours.with_region(hostile).text).region == hostile


def test_a_region_text_is_taken_as_it_is_with_a_final_newline() -> None:
    assert region_of(REGION) == region_of(REGION.rstrip("\n")) == region_of(REGION.replace("\n", "\r\n")) == REGION


def test_a_byte_order_mark_is_no_part_of_a_file() -> None:
    """A file that Notepad of Windows saved was refused: "line 1: invalid non-printable character U+FEFF"."""
    assert region_of("\ufeff" + REGION) == REGION
    assert region_of("\ufeff" + scaffold().with_region(REGION).text.replace("\n", "\r\n")) == REGION


def test_a_whole_scaffold_gives_its_region() -> None:
    """`agent check my_custom_init.py` works on the file that a person edited, also when Windows saved it."""
    text = scaffold().with_region(REGION).text
    assert region_of(text) == region_of(text.replace("\n", "\r\n")) == region_of(text.rstrip("\n")) == REGION


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("import math\n", "import os\n", "must read 'import math' but reads 'import os'"),
        ("    parser.add_argument", "    parser.add_argumenx", "but reads '    parser.add_argumenx"),
        ('"""Train one', '\n"""Train one', "line 1 must read"),
    ],
)
def test_a_change_outside_the_region_is_found_and_named(old: str, new: str, complaint: str) -> None:
    text = scaffold().with_region(REGION).text
    with pytest.raises(OutsideRegionError) as caught:
        region_of(text.replace(old, new, 1))
    assert caught.value.kind == "outside_region"
    assert complaint in str(caught.value)


def test_half_a_scaffold_is_told_what_is_missing() -> None:
    ours = scaffold()
    for text, missing in (
        (ours.prefix, "EDITABLE REGION: end"),
        (ours.suffix, "EDITABLE REGION: begin"),
        (ours.suffix + ours.prefix, "comes before its begin marker"),
    ):
        with pytest.raises(MarkersNotFoundError, match=missing) as caught:
            region_of(text)
        assert isinstance(caught.value, RegionError)
    with pytest.raises(OutsideRegionError):
        region_of(ours.prefix + ours.suffix + "more = 1\n")


def test_many_blank_lines_are_searched_quickly() -> None:
    """A megabyte of newlines must not hang the check."""
    assert region_of("\n" * 2**20) == "\n" * 2**20


def test_blank_lines_before_the_end_marker_may_be_missing_in_an_edited_file() -> None:
    """A script replaces everything between the markers. What stands there in the workspace's own file is exact."""
    ours = scaffold()
    marker = ours.suffix.lstrip("\n")
    for region in ("", "x = 1\n", "\n\nx = 1\n"):
        for blank in ("", "\n", "\n\n"):
            assert ours.region_in_edited(ours.prefix + region + blank + marker) == region
    with pytest.raises(OutsideRegionError):
        ours.region_in(ours.prefix + "x = 1\n" + marker)
    for text in (ours.prefix + "x = 1" + marker, ours.prefix[:-1] + marker, marker):
        with pytest.raises(OutsideRegionError):
            ours.region_in_edited(text)
