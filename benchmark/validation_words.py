"""What pydantic says of a wrong value, in words for the person who gave it. Imports nothing."""

from __future__ import annotations

import re

_WORDS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"^Value error, ", ""),
        (r"^Input should be a valid integer\b.*", "must be a whole number"),
        (r"^Input should be a valid number\b.*", "must be a number"),
        (r"^Input should be a finite number\b.*", "must be a finite number"),
        (r"^Input should be a valid boolean\b.*", "must be true or false"),
        (r"^Input should be a valid string\b.*", "must be a text"),
        (r"^Input should be a valid (?:list|tuple|set)\b.*", "must be a list"),
        (r"^Input should be a valid (?:dictionary or instance of TaskTable|dictionary)\b.*", "must be a table"),
        (r"^Input should be greater than or equal to ", "must be at least "),
        (r"^Input should be less than or equal to ", "must be at most "),
        (r"^Input should be greater than ", "must be more than "),
        (r"^Input should be ", "must be "),
        (r"^Field required$", "is missing"),
        (r"^Extra inputs are not permitted$", "is unknown"),
    )
)


def in_plain_words(message: str) -> str:
    """The message of one fault. What is not in our table stays as it is."""
    for pattern, words in _WORDS:
        message = pattern.sub(words, message)
    return message
