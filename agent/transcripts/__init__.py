"""Recorded conversations: read them, replay them, audit them, write them in other formats."""

from agent.transcripts.atif import write_atif
from agent.transcripts.audit import Audit, Leak, audit
from agent.transcripts.loading import load_transcript, parse_transcript
from agent.transcripts.mlsbench import write_mls_bench
from agent.transcripts.model import Note, RecordedCall, Segment, Snapshot, Transcript, TranscriptError
from agent.transcripts.replay import CallVerdict, Replay, replay

__all__ = [
    "Audit",
    "CallVerdict",
    "Leak",
    "Note",
    "RecordedCall",
    "Replay",
    "Segment",
    "Snapshot",
    "Transcript",
    "TranscriptError",
    "audit",
    "load_transcript",
    "parse_transcript",
    "replay",
    "write_atif",
    "write_mls_bench",
]
