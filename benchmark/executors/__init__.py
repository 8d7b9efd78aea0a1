"""The seam between a search and what carries out its evaluations, and the engines behind it."""

from benchmark.executors.local import LocalExecutor
from benchmark.executors.seam import (
    Ask,
    Call,
    EngineError,
    Executor,
    InfrastructureError,
    OnStart,
    Parent,
    Priority,
    ProcessDied,
    Report,
    TookTooLong,
    WrongMachine,
    prepared,
)

__all__ = [
    "Ask",
    "Call",
    "EngineError",
    "Executor",
    "InfrastructureError",
    "LocalExecutor",
    "OnStart",
    "Parent",
    "Priority",
    "ProcessDied",
    "Report",
    "TookTooLong",
    "WrongMachine",
    "prepared",
]
