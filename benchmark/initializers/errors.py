"""What can go wrong while initialising, by what the caller can do about it.

The configuration errors also derive from the types that MMEngine 0.10.7 raises in the same places (KeyError, TypeError,
RuntimeError), so that code written for it keeps working.
"""

from __future__ import annotations


class InitConfigError(ValueError):
    """The `init_cfg` is wrong; the message names the entry and the key. Nothing has been touched. Fix the config."""


class UnknownInitializerError(InitConfigError, KeyError):
    """`type` names no registered initialiser."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which would put the whole sentence in quotes.
        return str(self.args[0])


class InitArgumentError(InitConfigError, TypeError):
    """An argument is misspelt, missing, or of the wrong type."""


class UnknownSubmoduleError(InitConfigError, RuntimeError):
    """`override` names a submodule that the module does not have."""


class UninitializableModuleError(RuntimeError):
    """The module has parameters without storage (on the meta device, or lazy). Materialise them first."""


class CheckpointError(RuntimeError):
    """A checkpoint is missing, unreadable, would need to run code, or does not fit. Nothing has been touched."""
