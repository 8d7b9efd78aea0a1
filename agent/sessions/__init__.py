"""Sessions: any coding agent, or a person with an editor, as the proposer of a run.

A session is an ordinary run whose calls are made by separate processes, one after the other; the log is its state.

    from agent.config import SearchConfig
    from agent.sessions import Session, begin_test, session_status, wait_for_reply

    session = Session.start(Path("work"), SearchConfig(proposer="session", profile="smoke", budget=2))
    session = Session.open(Path("work"))          # in another process; Session(run) where there is no folder
    session.check().accepted                      # agent.evaluation.check.CheckReport; no lock, nothing logged
    session.call("edit", op="replace", start_line=30, end_line=31, content="…")  # any tool; writes the file
    reply = session.test()                        # SessionReply: text, ok, error, test, exit_code
    begin_test(session)                           # SessionReply or StillRunning at once: a detached process trains
    wait_for_reply(session, timeout=45)           # SessionReply, StillRunning, or None if nothing was ever tested
    session.undo(1), session.screen([text]), session.restore()
    session_status(session)                       # SessionStatus, with as_json()
    session.submit(1).done                        # the last line of `agent search --json`

`proposer="mcp"` (`CLOSED`) with `Session.start(None, …)` makes a session that has no folder, and that no command of
`agent session` can reach. Nothing here prints; `progress` receives messages. Refused calls come back as replies with
`ok` False. Raised are OutsideChanged and SessionEnded (both Rejected, exit code 3), RunBusy when another process works
on the run,
UsageError, RunDamaged, and `agent.engine.summary.OUR_FAILURES`.
"""

from agent.sessions.background import begin_test, wait_for_reply
from agent.sessions.folder import OutsideChanged, SessionFolder, require_no_session
from agent.sessions.replies import SessionEnded, SessionReply, StillRunning
from agent.sessions.session import CLOSED, OPEN, Session
from agent.sessions.status import SessionStatus, session_status

__all__ = [
    "CLOSED",
    "OPEN",
    "OutsideChanged",
    "Session",
    "SessionEnded",
    "SessionFolder",
    "SessionReply",
    "SessionStatus",
    "StillRunning",
    "begin_test",
    "require_no_session",
    "session_status",
    "wait_for_reply",
]
