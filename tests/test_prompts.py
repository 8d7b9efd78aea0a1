"""The templates are rendered by one environment, strict about names, and escape only where a browser reads them."""

from __future__ import annotations

import jinja2
import pytest

from prompts import environment


def test_pages_are_escaped_and_texts_for_models_are_not() -> None:
    """`<` in a task's name is a tag for a browser, and a plain character for a model or in Python."""
    choose = environment().autoescape
    assert callable(choose)
    for name in environment().list_templates(["j2"]):
        assert choose(name) == name.endswith(".html.j2"), name


def test_a_name_that_is_not_given_is_an_error() -> None:
    """A prompt with a hole in it would cost a whole search."""
    with pytest.raises(jinja2.UndefinedError):
        environment().get_template("llm_form.j2").render()


def test_filters_stay_with_whoever_asked_for_them() -> None:
    """Pages bring a filter along; the environment of the prompts does not get it."""
    with_filter = environment(shout=str.upper)
    assert with_filter.from_string("{{ 'a'|shout }}").render() == "A"
    assert "shout" not in environment().filters
    assert environment(shout=str.upper) is with_filter
