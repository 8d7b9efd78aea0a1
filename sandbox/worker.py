"""The work of a forked child: give up all rights, run one candidate, return the bytes of its parameters, end.

Nothing in this module is a security boundary once the candidate runs, because the candidate shares the process and can
change everything in it. The kernel enforces the boundary. The process returns only bytes and a status, which
`sandbox.isolate` checks from outside.
"""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import itertools
import json
import os
import platform
import random
import signal
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from benchmark import networks
from benchmark.models import build_model, init_config
from sandbox import confine, landlock, seccomp
from sandbox.prelude import namespace
from sandbox.wire import Limits

POISON = 0x7FC0BAD1
"""Bits of the quiet NaN that fills every parameter before the candidate runs. They show which values it never set."""
REGION = "<region>"
MAX_MESSAGE = 2000
# A candidate has only these descriptors: 0 /dev/null, 1 and 2 the log, 3 the result. All others are closed before.
_LOGS, _RESULT, _READY, _RULESET = (1, 2), 3, 4, 5
READY = b"ready"
"""A child writes this to its `ready` pipe once it is confined. Anything else is the reason for its failure."""
_MAX_DESCRIPTORS = 1 << 16
_MAX_PARTS = 1024  # IOV_MAX of Linux: the most buffers in one call
_ALIGNMENT = 16
"""The values begin at a multiple of this many bytes, so that numpy can read them without a copy."""


@dataclass(frozen=True)
class Template:
    """A network to initialise, filled with POISON. The zygote keeps one per architecture and class count."""

    arch: str
    num_classes: int
    model: nn.Module

    @staticmethod
    def build(arch: str, num_classes: int) -> Template:
        """Build the network and fill it with POISON. Raises ValueError for an unknown architecture."""
        model = build_model(arch, num_classes)
        for parameter in model.parameters():
            parameter.data.view(torch.int32).fill_(POISON)
        return Template(arch, num_classes, model)

    @staticmethod
    def foreign(request: dict[str, Any]) -> Template:
        """Build a user's network as its own constructors initialise it. Raises NetworkError."""
        model = networks.build(networks.Network.from_json(request["network"]), request["origin"])
        return Template(request["arch"], request["num_classes"], model)

    def layout(self) -> list[tuple[str, list[int]]]:
        """Return name and shape of every parameter, in the order of the result's bytes."""
        return [(name, list(parameter.shape)) for name, parameter in self.model.named_parameters()]


@dataclass(frozen=True)
class Confinement:
    """The restrictions of a child before it runs a candidate. `ruleset` is a Landlock fd, or None for no Landlock."""

    zygote: int
    seccomp: bool
    ruleset: int | None
    limits: Limits

    def apply(self) -> None:
        """Apply the limits, on Linux the end with the zygote, and Landlock and seccomp if this level has them."""
        if sys.platform == "linux":
            confine.die_with_parent(self.zygote)
        confine.limit_resources(cpu_seconds=self.limits.cpu_seconds, memory_bytes=self.limits.memory_bytes)
        if self.ruleset is not None or self.seccomp:
            confine.no_new_privs()
        if self.ruleset is not None:
            landlock.restrict_self(_RULESET)
        os.closerange(_RULESET, _MAX_DESCRIPTORS)
        if self.seccomp:
            seccomp.install()


_REHEARSAL = """
def initialize_weights(model, config):
    for parameter in model.parameters():
        nn.init.zeros_(parameter) if parameter.dim() < 2 else nn.init.orthogonal_(parameter)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.trunc_normal_(module.weight)
            torch.linalg.svdvals(module.weight.flatten(1)[:8])
    with torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
"""


def rehearse() -> None:
    """Run a harmless initialisation in the zygote, so that children inherit what is set up on first use.

    It has no backward pass, because torch refuses one in a child whose parent has run one.
    """
    _initialise(Template.build("resnet20", 10), _REHEARSAL, 0)
    if seccomp.machine() is not None:
        seccomp.program(platform.machine())


_SMALL = range(16, 480, 16)  # sizes in bytes: one in each size class of Python's allocator
_LARGE = (512, 40_000)  # sizes in bytes that Python passes to the C library's allocator
_KEPT: list[bytes] = []


def scatter_addresses(copies: int) -> None:
    """Leave gaps of each size at random places in memory, so that new objects get addresses in another order.

    Allocate `copies` blocks of each size and free half of them. The kernel randomises where a process's memory begins,
    but only by whole pages. The order of a small set of modules depends on the low bits of their addresses, which would
    be equal in every zygote.
    """
    generator = random.Random()  # seeded by the operating system
    sizes = [*_SMALL] * copies + [generator.randrange(*_LARGE) for _ in range(copies)]
    blocks = [bytes(size) for size in sizes]
    generator.shuffle(blocks)
    _KEPT.extend(blocks[::2])


class _Rejected(Exception):
    """The candidate is rejected; `kind` is the reason."""

    def __init__(self, kind: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.line = kind, line


def run(template: Template | None, job: int, result: int, log: int, ready: int, confinement: Confinement) -> NoReturn:
    """Read the candidate from fd `job`, run it, write to `log` and `result`, and end this process."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        with os.fdopen(job, "rb") as stream:
            request = json.loads(stream.read())
        places = {log: _LOGS, result: (_RESULT,), ready: (_READY,)}
        if confinement.ruleset is not None:
            places[confinement.ruleset] = (_RULESET,)
        _place(places)
        confinement.apply()
        os.write(_READY, READY)
    except BaseException as error:  # noqa: BLE001 - the zygote must receive any error, and the child must end
        for fd in (_READY, ready):
            with contextlib.suppress(OSError):
                os.write(fd, f"{type(error).__name__}: {error}".encode())
                break
        os._exit(1)
    os.close(_READY)
    _serve(template, request)


def _serve(template: Template | None, request: dict[str, Any]) -> NoReturn:
    payload: list[memoryview] = []
    verdict: dict[str, Any] = {"kind": None, "message": "", "line": None}
    constructed = None
    try:
        if template is None:
            template = _built(request)
            constructed = networks.constructed_sha256(template.model)
        payload = _initialise(template, request["region"], request["seed"])
    except _Rejected as error:
        verdict = {"kind": error.kind, "message": str(error), "line": error.line}
    except BaseException as error:  # noqa: BLE001 - a candidate may raise anything, SystemExit included
        verdict = _describe(error)
    verdict["constructed"] = constructed
    sys.stdout.flush()
    sys.stderr.flush()
    head = json.dumps(verdict).encode()
    head += b" " * (-(4 + len(head)) % _ALIGNMENT)
    _write([memoryview(len(head).to_bytes(4, "big") + head), *payload])
    os._exit(0)


def _built(request: dict[str, Any]) -> Template:
    try:
        return Template.foreign(request)
    except networks.NetworkError as error:
        word = networks.what_it_does(error)
        raise _Rejected("network", f"its constructor {word}: {error}" if word else str(error)) from None


def _place(targets: dict[int, tuple[int, ...]]) -> None:
    """Duplicate each key to its targets. First move all keys to high numbers, so that no target overwrites one."""
    sources = {fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64): numbers for fd, numbers in targets.items()}
    for fd, numbers in sources.items():
        for number in numbers:
            os.dup2(fd, number, inheritable=False)
        os.close(fd)


def _write(parts: list[memoryview]) -> None:
    while parts:
        written = os.writev(_RESULT, parts[:_MAX_PARTS])
        while parts and written >= len(parts[0]):
            written -= len(parts.pop(0))
        if written:
            parts[0] = parts[0][written:]


def _initialise(template: Template, region: str, seed: int) -> list[memoryview]:
    model, names = template.model, namespace()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        code = compile(region, REGION, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        raise _Rejected("syntax", f"{type(error).__name__}: {error}", line) from None
    before, shapes = list(model.named_parameters(remove_duplicate=False)), dict(template.layout())
    config = init_config(model, template.arch, template.num_classes)
    exec(code, names)
    function = names.get("initialize_weights")
    _check_signature(function, model, config)
    function(model, config)  # type: ignore[operator]
    return _collect(before, shapes, model)


def _check_signature(function: object, *arguments: object) -> None:
    if not inspect.isfunction(function):
        raise _Rejected("signature", "the region must define a function initialize_weights(model, config)")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        line = function.__code__.co_firstlineno
        message = f"initialize_weights must take (model, config), it takes {inspect.signature(function)}: {error}"
        raise _Rejected("signature", message, line) from None


def _collect(
    before: list[tuple[str, nn.Parameter]], shapes: dict[str, list[int]], model: nn.Module
) -> list[memoryview]:
    """Check that the parameters are still the same objects; return the bytes of all values (float32) in order."""
    expected, found = dict(before), dict(model.named_parameters(remove_duplicate=False))
    for name in expected:
        if name not in found:
            raise _Rejected("shape", f"{name} is gone from the model")
    for name, parameter in found.items():
        if name not in expected:
            raise _Rejected("shape", f"{name} was added to the model")
        if parameter is not expected[name]:
            raise _Rejected("shape", f"{name} was replaced or tied: write into the parameter that is there (copy_)")
    tensors = {name: parameter.detach() for name, parameter in before if name in shapes}  # each tied one once
    for name, tensor in tensors.items():
        if list(tensor.shape) != shapes[name]:
            raise _Rejected("shape", f"{name} has shape {list(tensor.shape)}, it must have {shapes[name]}")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            raise _Rejected("shape", f"{name} became {tensor.dtype} on {tensor.device}; it must stay float32 on cpu")
    _check_aliases(tensors)
    return [tensor.contiguous().numpy().data.cast("B") for tensor in tensors.values()]


def _check_aliases(tensors: dict[str, Tensor]) -> None:
    spans = []
    for name, tensor in tensors.items():
        length = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        spans.append((tensor.data_ptr(), tensor.data_ptr() + length * tensor.element_size(), name))
    spans.sort()
    for (_, end, first), (start, _, second) in itertools.pairwise(spans):
        if start < end:
            raise _Rejected("shape", f"{first} and {second} share memory: give each parameter values of its own")


_MEMORY_SIGNS = ("can't allocate memory", "not enough memory", "cannot allocate memory")
_DENIED_SIGNS = (
    *("operation not permitted", "permission denied", "no such file or directory"),
    "can't start new thread",
)


def _describe(error: BaseException) -> dict[str, Any]:
    line, frame = None, error.__traceback__
    while frame is not None:  # traceback.extract_tb would copy millions of frames after an endless recursion
        if frame.tb_frame.f_code.co_filename == REGION:
            line = frame.tb_lineno
        frame = frame.tb_next
    text = str(error)[:MAX_MESSAGE]
    lowered = text.lower()
    kind = "exception"
    if isinstance(error, MemoryError) or any(sign in lowered for sign in _MEMORY_SIGNS):
        kind = "memory"
    elif isinstance(error, OSError) or any(sign in lowered for sign in _DENIED_SIGNS):
        kind = "isolation"
    return {"kind": kind, "message": f"{type(error).__name__}: {text}", "line": line}
