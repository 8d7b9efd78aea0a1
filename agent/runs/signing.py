"""Signs reviews with a person's ssh key, and checks signatures, by `ssh-keygen -Y` (OpenSSH 8.0 or later)."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent.errors import UsageError

NAMESPACE = "initsearch"
"""Namespace of the signatures, so that a signature of something else, such as a git commit, is not accepted."""
_MISSING = "ssh-keygen was not found: install OpenSSH (Debian: apt install openssh-client)"


@dataclass(frozen=True)
class Signature:
    """The result of checking a signature. `fault`: it is wrong; `unproven`: what could not be checked."""

    signer: str = ""
    """The key's fingerprint, or its name in the list of allowed signers."""
    fault: str | None = None
    unproven: str | None = None


def sign(payload: bytes, key: Path) -> str:
    """Sign `payload` and return the armoured signature. ssh-keygen asks for the passphrase.

    Raises UsageError when ssh-keygen is missing or refuses the key.
    """
    if not key.is_file():
        raise UsageError(f"--sign {key}: no such file; give an ssh key, such as ~/.ssh/id_ed25519")
    try:
        made = _keygen("sign", "-n", NAMESPACE, "-f", str(key), payload=payload)
    except FileNotFoundError:
        raise UsageError(f"--sign {key}: {_MISSING}, or review without --sign") from None
    if made.returncode:
        raise UsageError(f"--sign {key}: ssh-keygen refused: {_words(made)}")
    return made.stdout.decode()


def examine(payload: bytes, signature: str, allowed: Path | None = None) -> Signature:
    """Check a signature. With `allowed`, a list of allowed signers (`man ssh-keygen`), also find the signer's name."""
    try:
        with tempfile.TemporaryDirectory(prefix="initsearch-verify-") as folder:
            file = Path(folder) / "signature"
            file.write_text(signature, encoding="utf-8")
            return _examine(payload, str(file), allowed)
    except FileNotFoundError:
        return Signature(unproven=f"signed, not checked: {_MISSING}")


def _examine(payload: bytes, file: str, allowed: Path | None) -> Signature:
    checked = _keygen("check-novalidate", "-n", NAMESPACE, "-s", file, payload=payload)
    if checked.returncode:
        return Signature(fault=f"its signature does not fit: {_words(checked)}")
    found = re.search(rb"SHA256:[A-Za-z0-9+/]+", checked.stdout)
    fingerprint = found.group().decode() if found else "an unknown key"
    if allowed is None:
        return Signature(fingerprint, unproven=f"signed by {fingerprint}, not checked against a list")
    named = _keygen("find-principals", "-s", file, "-f", str(allowed), payload=b"")
    for name in named.stdout.decode(errors="replace").splitlines():
        words = ("verify", "-f", str(allowed), "-I", name, "-n", NAMESPACE, "-s", file)
        if _keygen(*words, payload=payload).returncode == 0:
            return Signature(name)
    return Signature(fingerprint, fault=f"signed by {fingerprint}, which {allowed} does not allow")


def _keygen(*words: str, payload: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", "-Y", *words], input=payload, capture_output=True, check=False)


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    return " ".join((done.stderr or done.stdout).decode(errors="replace").split())[:300]
