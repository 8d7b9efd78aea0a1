"""Run all checks that need a GPU, and write a record that can be committed.

    python -m tests.gpu [--output FILE] [--speed]

Needs torch with a GPU and this package on PYTHONPATH; no pytest, no network. Without a GPU it says so and ends with 0.
`--speed` adds `python -m benchmark.speed --device cuda --lanes 1,4,8`, about four minutes more, and the same with
`--kernels triton`.
`--device cpu` runs the checks with small networks on the CPU, to test the checks.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmark.vision import installed_version
from tests.gpu.checks import CHECKS, Setting, timed
from tests.gpu.paper import check_paper
from tests.gpu.triton_kernels import TRITON_CHECKS, why_no_triton

SMALL = Setting(device="cpu", networks=("resnet20", "vgg8bn"), lanes=2, batch_size=8, steps=3)


def why_not() -> str | None:
    """Why nothing can be checked here, or None."""
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        return f"torch {torch.__version__} sees no GPU here" + ("" if built else "; it is a build for CPUs")
    return None


def versions(device: str) -> str:
    """Card, driver and versions in one line."""
    where = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        where = (
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, cuDNN {cudnn}"
        )
    return f"{where}; torch {torch.__version__}, Python {platform.python_version()}"


def main() -> int:
    """Run the command line. Returns the exit status: 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, help="also write the record to this file")
    parser.add_argument("--speed", action="store_true", help="measure the speed of 1, 4 and 8 lanes as well")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--kernels", default="auto")
    options = parser.parse_args()
    gpu = options.device.startswith("cuda")
    if gpu and (reason := why_not()) is not None:
        print(f"skipped: {reason}")
        return 0
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    setting = Setting(device=options.device, kernels=options.kernels) if gpu else SMALL
    say(f"$ {shlex.join(['python', '-m', 'tests.gpu', *sys.argv[1:]])}")
    say(f"{versions(options.device)}; {time.strftime('%Y-%m-%d')}")
    started = time.monotonic()
    failed = 0
    for check in (*CHECKS, *TRITON_CHECKS, check_paper):
        held, line, seconds = timed(check, setting)
        failed += not held
        say(f"{'ok    ' if held else 'FAILED'} {check.__name__.removeprefix('check_'):15} {seconds:6.1f} s  {line}")
    say(f"{failed} failed; {time.monotonic() - started:.0f} s")
    if options.speed and gpu:
        common = ["-m", "benchmark.speed", "--device", options.device, "--lanes", "1,4,8", "--rounds", "2"]
        rows = [["--kernels", options.kernels, *([] if installed_version() else ["--only-ours"])]]
        if (reason := why_no_triton(setting)) is None:
            rows += [["--kernels", "triton", "--only-ours"]] if options.kernels != "triton" else []
        else:
            say(f"\nspeed of triton not measured: {reason}")
        for row in rows:
            command = [*common, *row]
            say(f"\n$ python {shlex.join(command)}")
            done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
            say(done.stdout.rstrip() if done.returncode == 0 else done.stderr[-2000:])
            failed += done.returncode != 0
    if options.output is not None:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
