"""The zygote: a process that imports torch once and forks a child for each candidate. It runs no candidate itself.

It trusts only the socket that it was started with. It ends as soon as the trusted process ends.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import secrets
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from sandbox import confine, landlock, wire

# The zygote imports these once, so that a candidate needs neither files nor time to import them.
_PRELOAD = """
abc bisect cmath collections contextlib copy dataclasses datetime decimal enum fractions functools hashlib heapq inspect
itertools json math numbers operator random re statistics string textwrap time types typing warnings
numpy numpy.random torch torch.nn.functional torch.nn.init torch.nn.utils torch.fft torch.optim
"""


def main(message: dict[str, Any]) -> None:
    """Serve requests until the socket closes. `message` holds the fields of a `Configuration`."""
    config = wire.Configuration(**message)
    control = socket.socket(fileno=config.control)
    readable = [Path(path) for path in config.readable]
    confined = config.level != "none"
    if config.apart:
        _skip_process_numbers()
    if sys.platform == "linux":
        confine.prefer_as_victim()
        if confined:
            # Inside bubblewrap the user nobody may read every file.
            confine.drop_root(readable if config.level == "landlock" else [])
            confine.not_dumpable()
        confine.adopt_orphans()
    sys.argv[:] = [""]
    sys.path[:] = config.path
    gc.disable()  # an import makes no garbage, and looking for it takes a tenth of the start
    tempfile.tempdir = "/nonexistent"  # otherwise tempfile tries to write to each candidate folder
    for name in _PRELOAD.split():
        importlib.import_module(name)
    import torch

    from benchmark.networks import preload
    from sandbox import worker

    preload(config.preload)
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    worker.rehearse()
    abi = landlock.abi() if config.landlock else 0
    if config.level == "landlock" and not abi:
        raise OSError(errno.EOPNOTSUPP, "this kernel has no Landlock")
    ruleset = landlock.create_ruleset(readable, map(Path, config.listable)) if abi else None
    server = _Server(control, config.parent, confined, ruleset, worker, apart=config.apart)
    gc.enable()
    gc.collect()
    gc.freeze()
    wire.send(control, {"landlock_abi": abi, "seccomp": confined, "uid": os.geteuid(), "torch": torch.__version__})
    server.serve()
    os._exit(0)  # torch would take a quarter of a second to take itself apart


def _skip_process_numbers() -> None:
    """Use up a random number of process ids: inside bubblewrap the children of every zygote count from 3."""
    for _ in range(200 + secrets.randbelow(800)):
        thread = threading.Thread(target=int)  # a thread also takes an id, and is cheaper than a process
        thread.start()
        thread.join()


class _Server:
    def __init__(
        self,
        control: socket.socket,
        parent: int | None,
        confined: bool,
        ruleset: int | None,
        worker: Any,
        *,
        apart: bool,
    ) -> None:
        self._control, self._parent, self._confined, self._ruleset = control, parent, confined, ruleset
        self._worker, self._apart = worker, apart
        self._templates: dict[tuple[str, int], Any] = {}
        self._wakeup, sender = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(sender, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(sender, warn_on_full_buffer=False)

    def serve(self) -> None:
        while True:
            self._wait_for_request()
            try:
                message, fds = wire.receive(self._control)
                wire.send(self._control, self._answer(wire.Request.decode(message), fds))
            except wire.WireClosed:
                return

    def _wait_for_request(self) -> None:
        poller = self._poller()
        while True:
            ready = {fd for fd, _ in poller.poll()}
            if self._parent in ready:
                os._exit(0)
            if self._control.fileno() in ready:
                return
            self._drain()

    def _poller(self) -> select.poll:
        poller = select.poll()
        for fd in (self._control.fileno(), self._parent, self._wakeup):
            if fd is not None:
                poller.register(fd, select.POLLIN)
        return poller

    def _drain(self) -> None:
        try:
            os.read(self._wakeup, 4096)
        except BlockingIOError:
            return

    def _answer(self, request: wire.Request, fds: list[int]) -> dict[str, Any]:
        try:
            template = None if request.foreign else self._template(request.arch, request.num_classes)
            if request.limits is None:
                assert template is not None, "a user's network has its layout from the trusted process"
                return {"layout": template.layout()}
            return self._run(template, request.limits, request.bare, fds)
        except ValueError as error:
            return {"error": str(error)}
        finally:
            for fd in fds:
                os.close(fd)

    def _template(self, arch: str, num_classes: int) -> Any:
        key = (arch, num_classes)
        if key not in self._templates:
            if self._apart:
                self._worker.scatter_addresses(400)
            self._templates[key] = self._worker.Template.build(arch, num_classes)
            gc.collect()
            gc.freeze()
        return self._templates[key]

    def _run(self, template: Any, limits: wire.Limits, bare: bool, fds: list[int]) -> dict[str, Any]:
        confinement = self._worker.Confinement(
            zygote=os.getpid(),
            seccomp=self._confined and not bare,
            ruleset=None if bare else self._ruleset,
            limits=limits,
        )
        ready, sender = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                if self._apart:
                    self._worker.scatter_addresses(30)
                self._worker.run(template, *fds, sender, confinement)
            finally:
                os._exit(1)
        for fd in (*fds, sender):
            os.close(fd)
        fds.clear()
        report = self._supervise(child, limits.wall_seconds)
        with os.fdopen(ready, "rb") as stream:
            said = stream.read(4096)
        if said != self._worker.READY:  # the worker failed to confine itself, so no candidate has run
            return {"broken": f"a worker could not confine itself: {said.decode(errors='replace') or report}"}
        return report

    def _supervise(self, child: int, wall_seconds: float) -> dict[str, Any]:
        """Wait for `child` and kill it after `wall_seconds`. If the trusted process is gone, kill it and exit."""
        deadline, timed_out, poller = time.monotonic() + wall_seconds, False, self._poller()
        while True:
            pid, status, usage = os.wait4(child, os.WNOHANG)
            if pid:
                break
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                timed_out = True
                _kill_group(child)
                _, status, usage = os.wait4(child, 0)
                break
            ready = {fd for fd, _ in poller.poll(max(1, min(remaining, 3600) * 1000))}
            if ready & {self._parent, self._control.fileno()}:  # during a run, only end-of-file can arrive here
                _kill_group(child)
                _kill_descendants()
                os._exit(0)
            self._drain()
        _kill_descendants()
        return {
            "exit": os.waitstatus_to_exitcode(status),
            "timed_out": timed_out,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
        }


def _kill_group(process: int) -> None:
    """Kill a child that was not waited for yet, so that its id is still its own, and its process group."""
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(process, signal.SIGKILL)


def _kill_descendants() -> None:
    """Kill and reap all children of this process until there are none. Orphans have become its children."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            continue
        for orphan in _children():
            _kill_group(orphan)
        time.sleep(0.002)


def _children() -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                continue
            raise
        if int(fields[1]) == os.getpid():
            found.append(int(status.parent.name))
    return found
