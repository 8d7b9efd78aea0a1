"""The options with which a session begins, by `agent session start` or by `agent mcp`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BudgetOption = Annotated[int | None, typer.Option(help="Tests that may be spent (default 3).")]
ScreenOption = Annotated[
    float | None, typer.Option(help="Before each test, looks may cost this share of a test (default 0).")
]
ConfirmOption = Annotated[
    int | None, typer.Option(help="On submit, train the best tests again on so many fresh seeds (default 0).")
]
StartOption = Annotated[str | None, typer.Option(help="Recipe or file that the session starts from.")]
NewRunsOption = Annotated[Path | None, typer.Option(help="Folder for the run (default runs).")]
