"""`agent doctor`: shows what this machine can do and what is missing."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent.cli.app import JsonFlag, RayAddressOption, SlurmOption, app
from agent.cli.output import print_json, print_next, say


@app.command()
def doctor(
    executor: Annotated[str | None, typer.Option(help="Look at a cluster instead: ray or slurm; or auto.")] = None,
    ray_address: RayAddressOption = None,
    slurm: SlurmOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what this machine can do and what is missing.

    \b
    Examples:
      agent doctor
      agent doctor --json
      agent doctor --executor ray --ray-address 10.0.0.5:6379
      agent doctor --executor slurm --slurm partition=gpu

    The exit code is 1 when something that a pocket search needs is missing.
    """
    if (executor, ray_address, slurm) != (None, None, None):
        from agent.cli.clusters import examine_cluster, print_cluster
        from agent.config import load_config
        from agent.evaluation.engines import chosen_engine

        config, notes = chosen_engine(load_config({"executor": executor, "ray_address": ray_address, "slurm": slurm}))
        for note in notes:
            say(note)
        if config.executor != "local":
            cluster = examine_cluster(config, say)
            print_json(cluster) if as_json else print_cluster(cluster)
            raise typer.Exit(0 if cluster["ready"] else 1)
    found = examine()
    if as_json:
        print_json(found)
    else:
        _print(found)
    raise typer.Exit(0 if found["ready"] else 1)


def examine() -> dict[str, Any]:
    """Examine everything that a search depends on, as the object of `agent doctor --json`."""
    import os
    import platform
    import shutil
    from importlib.metadata import version

    from agent.config import SearchConfig
    from agent.evaluation.gpu_lanes import measured_lanes
    from benchmark.data import NUM_CLASSES, available
    from benchmark.hardware import cpu_count, environment, gpu_count, gpu_problem, gpus
    from benchmark.store import user_store
    from benchmark.vision import installed_version
    from sandbox.isolate import probe

    git = shutil.which("git")
    isolation = probe(say)
    say("looking at data sets, torch and the processor")
    cache = user_store().folder
    problems = []
    if git is None:
        problems.append("git is not installed: it keeps the history of each search (Debian: apt install git)")
    if not isolation.get("level"):
        problems.append("no isolation level works here: only --allow-unsandboxed would run candidates")
    data = {name: available(name) for name in NUM_CLASSES}
    lanes, rate = measured_lanes(SearchConfig())
    return {
        "ready": not problems,
        "problems": problems,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in ("torch", "optuna", "openai", "GitPython")}
        | {"torchvision": installed_version()},
        "torchvision": _torchvision(),
        "environment": environment(),
        "cores": cpu_count(),
        "gpus": gpu_count(),
        "gpu_details": [vars(gpu) | {"lanes": lanes, "images_per_second": rate} for gpu in gpus()],
        "gpu_problem": gpu_problem(),
        "git": None if git is None else _version_of(git),
        "isolation": isolation,
        "data": {name: {"available": found.ok, "reason": found.reason} for name, found in data.items()},
        "result_store": str(cache),
        "disk_free_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "api_key": "set" if os.environ.get("OPENAI_API_KEY") else "not set",
    }


def _version_of(git: str) -> str:
    import subprocess

    return subprocess.run([git, "--version"], capture_output=True, text=True, check=False).stdout.strip()


def _print(found: dict[str, Any]) -> None:
    env = found["environment"]
    print(f"python      {found['python']} on {found['platform']}")
    print(f"torch       {env['torch']}, {env['device']} {env['capability']}, precision {env['precision']}")
    print(f"torchvision {found['torchvision']['reason']}")
    print(f"machine     {found['cores']} cores, {found['gpus']} GPUs, {found['disk_free_gb']} GB free here")
    for gpu in found["gpu_details"]:
        lanes = "lanes are measured by the first search"
        if gpu["lanes"]:
            lanes = f"{gpu['lanes']} lanes, about {gpu['images_per_second']:,.0f} images/s"
        how = "bfloat16" if gpu["bf16"] else "float32, because it has no bfloat16"
        print(f"gpu         {gpu['name']}, {gpu['memory_gb']} GB ({gpu['free_gb']} free), {how}; {lanes}")
    if found["gpu_problem"]:
        print(f"gpu         {found['gpu_problem']}")
    print(f"git         {found['git'] or 'missing'}")
    print(f"isolation   {found['isolation'].get('level') or 'none'}")
    for name, tried in found["isolation"]["levels"].items():
        how = "works" if tried["usable"] else "not taken"
        print(f"  {name}: {how} after {tried['seconds']:.0f} s: {tried['reason']}")
    for name, state in found["data"].items():
        print(f"data        {name}: {'yes' if state['available'] else 'no'} ({state['reason'].splitlines()[-1]})")
    print(f"results     kept in {found['result_store']}")
    print(f"api key     {found['api_key']} (only needed for --proposer llm)")
    for problem in found["problems"]:
        print(f"PROBLEM     {problem}")
    print_next("agent search --budget 3" if found["ready"] else "solve the problems above")


def _torchvision() -> dict[str, Any]:
    """Whether torchvision can be imported. Only `--download` needs it."""
    from benchmark.vision import VisionMissing, installed_version, vision

    try:
        vision("datasets")
    except VisionMissing as error:
        return {"imports": False, "reason": f"only --download needs it: {error}"}
    return {"imports": True, "reason": f"{installed_version()}, for --download"}
