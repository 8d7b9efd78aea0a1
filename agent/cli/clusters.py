"""What `agent doctor --executor ray|slurm` says: which machines answer, and whether they are like this one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.cli.output import print_next
from agent.config import SearchConfig
from agent.safe_text import spelt
from agent.secrets import kept_from_children
from benchmark.executors import EngineError
from benchmark.executors.checks import differences

Say = Callable[[str], None]


def examine_cluster(config: SearchConfig, say: Say) -> dict[str, Any]:
    """The object of `agent doctor --executor … --json`: what is reachable, and the problems."""
    examine = _examine_ray if config.executor == "ray" else _examine_slurm
    found: dict[str, Any] = {"executor": config.executor}
    try:
        with kept_from_children():  # as in a search, which must reach what this reaches
            found |= examine(config, say)
    except EngineError as error:
        found |= {"problems": [str(error)]}
    return {**found, "ready": not found["problems"]}


def _examine_ray(config: SearchConfig, say: Say) -> dict[str, Any]:
    from benchmark.executors.ray_cluster import connected, node_facts, nodes
    from benchmark.hardware import cpu_count

    address = config.ray_address or "auto"
    say(f"connecting to Ray at {address}")
    with connected(address, cpus=cpu_count()):
        import ray

        there = nodes()
        say(f"asking {len(there)} nodes what is installed there")
        facts = node_facts(there)
        rows = [
            {"node": node.name, "cpus": node.cpus, "gpus": node.gpus, "kind": node.kind, **facts.get(node.name, {})}
            for node in there
        ]
        return {"address": address, "ray": ray.__version__, "nodes": rows, "problems": differences(facts)}


def _examine_slurm(config: SearchConfig, say: Say) -> dict[str, Any]:
    from benchmark.executors.slurm import SlurmExecutor
    from benchmark.executors.slurm_jobs import parse_options, reachable
    from benchmark.hardware import DescribeEnvironment

    options = parse_options(config.slurm)
    found = reachable()
    if found["submitit"] is None:
        raise EngineError("--executor slurm needs submitit: pip install 'initsearch[slurm]'")
    if found.get("error"):  # first: without a configuration, sinfo does not even tell its version
        return {**found, "problems": [found["error"]]}
    if found["slurm"] is None:
        raise EngineError("the commands of Slurm (sinfo, sbatch) are not here; run this where they are")
    describe = DescribeEnvironment(config.precision)
    say("submitting one job, to see whether it starts and shares this folder")
    with (
        tempfile.TemporaryDirectory(prefix="initsearch-doctor-", dir=Path.cwd()) as folder,
        SlurmExecutor(Path(folder), options, slots=1, describe=describe, say=say) as engine,
    ):
        return {**found, "environment": engine.environment, "shared_folder": str(Path.cwd()), "problems": []}


def print_cluster(found: dict[str, Any]) -> None:
    """The findings for people."""
    for name in ("ray", "slurm", "submitit", "address", "shared_folder"):
        if found.get(name):
            print(f"{name:14}{spelt(str(found[name]))}")
    for row in found.get("nodes", []):
        kind = f" {row['kind']}" if row["kind"] else ""
        versions = ", ".join(f"{name} {row.get(name)}" for name in ("initsearch", "torch", "python"))
        print(spelt(f"node          {row['node']}: {row['cpus']} CPUs, {row['gpus']} GPUs{kind}; {versions}"))
    for row in found.get("partitions", []):
        print(spelt(f"partition     {_listed(row)}"))
    if "environment" in found:
        print(spelt(f"a job has     {_listed(found['environment'])}"))
    for problem in found["problems"]:
        print(spelt(f"PROBLEM       {problem}"))
    print_next(f"agent search --executor {found['executor']}" if found["ready"] else "solve the problems above")


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
