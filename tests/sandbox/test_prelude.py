"""What a region finds in scope is what the file it stands in imports."""

from __future__ import annotations

import ast

from sandbox.prelude import PRELUDE, namespace
from sandbox.region import NAMES_IN_SCOPE, scaffold


def imports(source: str) -> dict[str, str]:
    """Local name and origin of everything imported at the top level of `source`."""
    found: dict[str, str] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_worker_offers_what_the_scaffold_imports() -> None:
    """A region that runs by hand in custom_init.py runs in isolation, and the other way round."""
    prelude, file = imports(PRELUDE), imports(scaffold().prefix)
    assert set(prelude) == set(NAMES_IN_SCOPE)
    assert all(file[name] == origin for name, origin in prelude.items())
    assert set(NAMES_IN_SCOPE) <= set(namespace())
