"""Writes docs/files.md, the list of the files: python docs/files_listed.py.

A module is described by its docstring's first paragraph, a template by the comment at its beginning.
`tests/test_rooms.py` fails if the list is not what this would write.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs/files.md"
ROOMS = ("agent", "sandbox", "benchmark")
HEAD = """# The files

What each file is, in its own first words. `python docs/files_listed.py` writes this page;
[CONTRIBUTING](../CONTRIBUTING.md) says what belongs where, and why.
"""
TEMPLATES = """## prompts/

The Jinja2 templates. `*.html.j2` are the pages of a report, `web_*` those of `agent serve`.
"""


def first_sentence(module: Path) -> str:
    """The first paragraph of a module's docstring, as one line."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def packages(folder: Path) -> Iterator[Path]:
    """A package and those in it, at any depth, each before its own."""
    yield folder
    for inner in sorted(folder.iterdir()):
        if (inner / "__init__.py").exists():
            yield from packages(inner)


def listed() -> str:
    """The page, as Markdown."""
    lines = [HEAD]
    for room in ROOMS:
        for package in packages(ROOT / room):
            lines += [f"## {package.relative_to(ROOT).as_posix()}/", "", first_sentence(package / "__init__.py"), ""]
            modules = [module for module in sorted(package.glob("*.py")) if module.name != "__init__.py"]
            lines += [f"- `{module.name}` {first_sentence(module)}" for module in modules]
            lines += [""] if modules else []
    lines.append(TEMPLATES)
    for template in sorted((ROOT / "prompts").glob("*.j2")):
        comment = re.match(r"{#-?(.+?)-?#}", template.read_text(encoding="utf-8"), re.DOTALL)
        lines.append(f"- `{template.name}`" + (f" {' '.join(comment[1].split())}" if comment else ""))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(listed(), encoding="utf-8")
