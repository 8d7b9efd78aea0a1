"""Applies a patch in an empty folder as `git am` would. Checks patches that another version wrote."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from sandbox.region import SCAFFOLD_NAME


def effect_fault(patch: bytes, before: str, after: str) -> str | None:
    """Check that applying `patch` to `before` gives `after` and changes nothing else. Returns the fault, or None.

    The message and the author of the patch are not checked.
    """
    with tempfile.TemporaryDirectory(prefix="initsearch-verify-") as folder:
        tree, mails = Path(folder) / "tree", Path(folder) / "mails"
        mails.mkdir()
        target = tree / SCAFFOLD_NAME
        target.parent.mkdir(parents=True)
        target.write_bytes(before.encode())
        target.chmod(0o644)
        split = _git(mails, "mailsplit", f"-o{mails}", stdin=patch)
        if split.returncode or split.stdout.strip() != b"1":
            return f"it is not one mail but {split.stdout.decode(errors='replace').strip() or 'none'}"
        if _git(mails, "mailinfo", "message", "diff", stdin=(mails / "0001").read_bytes()).returncode:
            return "it cannot be read as a mail"
        applied = _git(tree, "apply", str(mails / "diff"))
        if applied.returncode:
            return f"it does not apply: {applied.stderr.decode(errors='replace').strip()[:300]}"
        found = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if not path.is_dir())
        if found != [SCAFFOLD_NAME]:
            others = ", ".join(name for name in found if name != SCAFFOLD_NAME)
            return f"it also makes {others}" if others else f"it removes {SCAFFOLD_NAME}"
        if target.is_symlink() or target.stat().st_mode & 0o111:
            return f"it changes what kind of file {SCAFFOLD_NAME} is"
        if target.read_bytes() != after.encode():
            return "applied, it gives another file than the submitted one"
    return None


def _git(folder: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run git without any repository or configuration of this machine."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(["git", *words], cwd=folder, env=environment, input=stdin, capture_output=True, check=False)
