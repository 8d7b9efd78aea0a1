"""pydantic's messages in plain words."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.validation_words import in_plain_words


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")

    whole: int = Field(default=1, ge=1, lt=9)
    number: float = Field(default=1.0, gt=0, le=2, allow_inf_nan=False)
    switch: bool = False
    text: str = ""
    table: dict[str, int] = {}
    several: tuple[int, ...] = ()
    choice: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"whole": "many"}, "must be a whole number"),
        ({"whole": 1.5}, "must be a whole number"),
        ({"whole": 0}, "must be at least 1"),
        ({"whole": 9}, "must be less than 9"),
        ({"number": "many"}, "must be a number"),
        ({"number": float("nan")}, "must be a finite number"),
        ({"number": 0}, "must be more than 0"),
        ({"number": 3}, "must be at most 2"),
        ({"switch": "perhaps"}, "must be true or false"),
        ({"text": 3}, "must be a text"),
        ({"table": 3}, "must be a table"),
        ({"several": 3}, "must be a list"),
        ({"choice": "c"}, "must be 'a' or 'b'"),
        ({"other": 1}, "is unknown"),
    ],
)
def test_a_wrong_value_is_named_in_plain_words(fields: dict[str, Any], words: str) -> None:
    """`--budget x` was answered with "Input should be a valid integer, unable to parse string as an integer"."""
    with pytest.raises(ValidationError) as raised:
        _Model.model_validate(fields)
    assert in_plain_words(raised.value.errors()[0]["msg"]) == words


def test_other_messages_stay_as_they_are() -> None:
    """Our own sentences come as "Value error, …"; only this beginning goes."""
    assert in_plain_words("Value error, must be an even number") == "must be an even number"
    assert in_plain_words("String should have at most 3 characters") == "String should have at most 3 characters"
