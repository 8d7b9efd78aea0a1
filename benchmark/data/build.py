"""The command line of both builders of embedded data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmark.data.container import Packed
from benchmark.data.dataset import DataError
from benchmark.data.pocket import EMBEDDED


def run_builder(description: str, build: Callable[[Path], Packed], default_source: Path, package: str) -> None:
    """Parse the arguments, build, then write or compare. Exits with 1 if --check finds a difference."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=default_source, help=f"default: {default_source}")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="default: the package's own folder")
    parser.add_argument("--check", action="store_true", help="compare with what is in --out, write nothing")
    args = parser.parse_args()
    if not args.source.is_dir():
        sys.exit(f"{args.source} is no folder. Install the package: apt-get install {package} (or give --source).")
    try:
        packed = build(args.source)
    except (DataError, OSError) as error:
        sys.exit(f"cannot build from {args.source}: {error}")
    shapes = ", ".join(f"{key} {tuple(array['shape'])}" for key, array in packed.manifest["arrays"].items())
    print(f"{packed.manifest['name']}: {shapes}; {len(packed.blob):,} bytes")
    if not args.check:
        packed.write(args.out)
        print(f"written to {args.out}")
        return
    differences = packed.differences(args.out)
    if differences:
        sys.exit("\n".join(differences))
    print(f"{args.out}: identical, byte for byte")
