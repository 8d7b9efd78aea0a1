"""A real Slurm of one node for tests: munged, slurmctld and slurmd of Debian's slurm-wlm, in a folder of their own.

`python -m tests.cluster.slurm_server FOLDER` starts one and prints the variable that makes its commands use it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")

_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={port1}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2,batch_sched_delay=0,default_queue_depth=100
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
MaxJobCount={most}
MinJobAge={age}
KillWait=2
UnkillableStepTimeout=20
{gres_types}NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} {gres}State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
"""


def missing() -> str | None:
    """Why no Slurm can be started here; None when it can."""
    without = [name for name in PROGRAMS if shutil.which(name) is None]
    if without:
        return f"not installed: {', '.join(without)} (Debian: apt install slurm-wlm)"
    if os.geteuid() != 0:
        return "the daemons of Slurm are started by root"
    return None


def _port() -> int:
    """The first of two free ports that follow each other."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise RuntimeError("no two free ports")


@contextmanager
def slurm(
    folder: Path, *, cpus: int = 2, most: int = 100, age: int = 300, gpu: bool = False
) -> Iterator[dict[str, str]]:
    """Yields the environment variables with which Slurm's commands use this server. All daemons end with the block.

    `most`: jobs that it keeps, finished ones for `age` seconds. `gpu`: the node's configuration names one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    port, host = _port(), socket.gethostname()
    conf = folder / "slurm.conf"
    numbers = {"port": port, "port1": port + 1, "cpus": cpus, "most": most, "age": age}
    types, gres = ("GresTypes=gpu\n", "Gres=gpu:1 ") if gpu else ("", "")
    conf.write_text(_CONF.format(folder=folder, host=host, gres_types=types, gres=gres, **numbers))
    if gpu:
        (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File=/dev/null\n")
    variables = {"SLURM_CONF": str(conf)}
    environ = {**os.environ, **variables}
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        with (folder / f"{words[0]}.out").open("wb") as out:
            daemons.append(subprocess.Popen(words, env=environ, stdout=out, stderr=out, start_new_session=True))

    try:
        start(
            *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"),
            *(f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/seed"),
        )
        _until(lambda: (folder / "munge.socket").exists(), folder)
        start("slurmctld", "-D", "-f", str(conf))
        start("slurmd", "-D", "-f", str(conf), "-N", host)
        _until(lambda: _idle(environ), folder)
        yield variables
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            _cancel_all(environ)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(daemons):
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _cancel_all(environ: dict[str, str]) -> None:
    """End all jobs and wait for them: a daemon that ends leaves them running."""
    subprocess.run(["scancel", "--user=root", "--full"], env=environ, capture_output=True, timeout=30, check=False)
    for _ in range(50):
        left = subprocess.run(["squeue", "-h"], env=environ, capture_output=True, text=True, timeout=30, check=False)
        if not left.stdout.strip():
            return
        time.sleep(0.2)


def _idle(environ: dict[str, str]) -> bool:
    found = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environ, capture_output=True, text=True, check=False)
    return found.stdout.strip() == "idle"


def _until(ready: object, folder: Path, seconds: float = 30.0) -> None:
    assert callable(ready)
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{p.name}: {p.read_text(errors='replace')[-800:]}" for p in folder.glob("*.[lo]*"))
            raise RuntimeError(f"Slurm did not start:\n{logs}")
        time.sleep(0.2)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # ends the daemons, too
    with slurm(Path(sys.argv[1])) as given:
        print(" ".join(f"{name}={value}" for name, value in given.items()), flush=True)
        signal.pause()
