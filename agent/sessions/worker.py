"""The process in the background: reads its order from stdin, makes one call, says what it does on stderr."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import NoReturn

from agent.errors import AgentError, Interrupted, in_one_sentence


def main() -> NoReturn:
    """Carry out the order. The exit code is 0 where the log has a reply, else that of the error."""
    order = json.load(sys.stdin)
    sys.argv = ["agent", "session", *([order["tool"], "--background"] if order["tool"] else ["wait"])]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    from agent.engine.resuming import Allowed
    from agent.engine.summary import OUR_FAILURES
    from agent.progress import PlainProgress
    from agent.runs.directory import RunDirectory
    from agent.sessions.folder import SessionFolder
    from agent.sessions.session import Session

    root = order["data_root"]
    allowed = Allowed(
        allow_unsandboxed=order["allow_unsandboxed"],
        download=order["download"],
        data_root=None if root is None else Path(root),
        profile=order["profile"],
    )
    folder = None if order["folder"] is None else SessionFolder(Path(order["folder"]))
    session = Session(RunDirectory(Path(order["run"])), folder, allowed)
    progress = PlainProgress()
    try:
        match order["tool"]:
            case "test":
                session.test(region=order["region"], progress=progress)
            case "screen":
                session.screen(order["candidates"], progress=progress)
            case "submit":
                session.submit(order["n"], progress=progress)
            case _:
                session.finish_begun(progress=progress)
    except (AgentError, *OUR_FAILURES) as error:
        print(f"error: {in_one_sentence(error)}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, AgentError) else 1)
    finally:
        progress.close()
    sys.exit(0)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise Interrupted(number)


if __name__ == "__main__":
    main()
