"""Text that models and reports read, as Jinja2 templates."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


@functools.cache
def environment(**filters: Callable[..., str]) -> jinja2.Environment:
    """The templates of this folder, with these filters beside Jinja's own.

    A name that the caller does not give raises UndefinedError. Values are escaped in `*.html.j2` and nowhere else:
    the other templates are plain text for models, or Python.
    """
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",), default=False),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(filters)
    return made
