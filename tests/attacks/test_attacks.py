"""Hostile regions, each in a file of its own under regions/, at every level: the attempt fails and nothing is left.

A region says in its first lines what it tries and which verdicts are right ("accepted" where it fails without an error
and its weights are acceptable). It prints ESCAPED where it succeeds. What is outside is told to it in HOST.
"level: any" stands where what stops it is the same at every level; it runs at the strongest that the machine offers.
There an honest candidate follows each attack. At the other levels one follows all of them: what forks it is the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox import canary
from sandbox.isolate import Initialised, Isolation, Job, Limits, obstacle_to
from sandbox.launcher import Zygote
from tests.attacks.host import KEY_NAME, NEEDLE, Host, host

REGIONS = Path(__file__).with_name("regions")
SUFFIX = ".py.txt"  # no tool that walks through Python files is to meet them
ATTACKS = sorted(str(path.relative_to(REGIONS)).removesuffix(SUFFIX) for path in REGIONS.rglob(f"*{SUFFIX}"))
LEVELS = ("bubblewrap", "landlock", "bubblewrap without landlock")
STRONGEST = next((level for level in LEVELS if obstacle_to(level.split()[0]) is None), LEVELS[0])
ARCH, CLASSES = "resnet20", 10
PATIENT = Limits(wall_seconds=60, cpu_seconds=30, memory_bytes=512 << 20, output_bytes=1 << 16)
IMPATIENT = dataclasses.replace(PATIENT, wall_seconds=1.25, cpu_seconds=1)
MORE_IMPATIENT = dataclasses.replace(IMPATIENT, wall_seconds=0.4)
"""The clock ends what the processor's limit, which is the same for all, ends at the strongest level in `BY_CPU`."""
BY_CPU = (
    *("processes/infinite_loop", "processes/matrix_loop", "processes/ignore_signals", "processes/deep_recursion"),
    *("python/compiler_bomb", "python/folded_constants"),
)
"""Python's loop, torch's, one that ignores the first signal, and those that something else may end before."""
HONEST = """
def initialize_weights(model, config):
    for parameter in model.parameters():
        nn.init.ones_(parameter) if parameter.dim() < 2 else nn.init.kaiming_normal_(parameter)
"""


@dataclass(frozen=True)
class Attack:
    """A hostile region as the file describes it."""

    text: str
    expected: tuple[str, ...]
    seed: int
    any_level: bool

    @staticmethod
    def read(name: str, facts: dict[str, object]) -> Attack:
        text = (REGIONS / f"{name}{SUFFIX}").read_text()
        options = dict(re.findall(r"^# (expect|level|pad|seed): (.*)$", text, re.MULTILINE))
        text = re.sub(r"^# expect: .*$", lambda line: f"{line[0]}\nHOST = {facts!r}", text, count=1, flags=re.MULTILINE)
        text += "\n" + "#" * int(options.get("pad", 0))
        expected, seed = tuple(options["expect"].split(", ")), int(options.get("seed", 0))
        return Attack(text, expected, seed, options.get("level") == "any")


AT_ANY_LEVEL = [name for name in ATTACKS if Attack.read(name, {}).any_level]
AT_EVERY_LEVEL = [name for name in ATTACKS if name not in AT_ANY_LEVEL]
UNLIKE = [name for name in AT_EVERY_LEVEL if "nondeterministic" in Attack.read(name, {}).expected]
"""A repetition gives them away. Landlock hides none of what they look at, so they are no different without it."""


@dataclass
class Arena:
    """One isolation with a host around it, used by many attacks: what one of them breaks, the next one notices."""

    level: str
    isolation: Isolation
    host: Host
    out: Path
    reference: bytes
    processes: set[int]

    def run(self, region: str, *, seed: int = 0, limits: Limits = PATIENT, again: bool = False) -> Initialised:
        self.isolation.limits = limits
        run = self.isolation.repeat if again else self.isolation.initialise
        return run(Job(region, ARCH, CLASSES, seed, self.out / "weights.safetensors"))


def weights(result: Initialised) -> bytes:
    """The file that was made, before the next one takes its place."""
    assert result.weights is not None, result.message
    return result.weights.read_bytes()


@pytest.fixture(scope="module")
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with open_arena(str(request.param), tmp_path_factory.mktemp("arena")) as arena:
        yield arena


@pytest.fixture(scope="module")
def unfenced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with open_arena("none", tmp_path_factory.mktemp("arena")) as arena:
        yield arena


@contextlib.contextmanager
def open_arena(level: str, folder: Path) -> Iterator[Arena]:
    name = level.split()[0]
    obstacle = obstacle_to(name) if name != "none" else None
    if obstacle is not None:
        pytest.skip(obstacle)
    for part in ("host", "out"):
        (folder / part).mkdir()
    with pytest.MonkeyPatch.context() as patch, host(folder / "host") as prey:
        patch.setenv(KEY_NAME, prey.token)
        if level.endswith("without landlock"):
            for module in ("isolate", "levels"):
                patch.setattr(f"sandbox.{module}.Zygote", functools.partial(Zygote, landlock=False))
        before = descendants()
        with Isolation(level=name) as isolation:  # type: ignore[arg-type]
            arena = Arena(level, isolation, prey, folder / "out", b"", set())
            assert arena.run(f"# {NEEDLE}\n{HONEST}").ok
            arena.reference = weights(arena.run(HONEST))
            repeats = level in ("bubblewrap", "landlock")  # where attacks ask for a repetition
            if repeats:
                assert weights(arena.run(HONEST, again=True)) == arena.reference
            arena.processes = descendants() - before
            yield arena
            assert weights(arena.run(HONEST)) == arena.reference, "an attack changed what comes after it"
            if repeats:
                assert weights(arena.run(HONEST, again=True)) == arena.reference


def descendants() -> set[int]:
    """Every process below this one."""
    parents = {}
    for process in os.scandir("/proc"):
        try:
            if process.name.isdecimal():
                stat = Path(process.path, "stat").read_text()
                parents[int(process.name)] = int(stat.rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


@pytest.mark.parametrize("arena", LEVELS, indirect=True)
@pytest.mark.parametrize("name", [name for name in AT_EVERY_LEVEL if name not in UNLIKE])
def test_attack_fails_and_leaves_nothing(arena: Arena, name: str) -> None:
    """Somebody submits this region: it gets nothing, breaks nothing, and the next candidate is none the wiser."""
    attack(arena, name)


@pytest.mark.parametrize("arena", LEVELS[:2], indirect=True)
@pytest.mark.parametrize("name", UNLIKE)
def test_weights_that_differ_from_time_to_time_are_found(arena: Arena, name: str) -> None:
    """The same for those that look for what is not the same in a repetition."""
    attack(arena, name)


@pytest.mark.parametrize("arena", [STRONGEST], indirect=True)
@pytest.mark.parametrize("name", AT_ANY_LEVEL)
def test_attack_fails_whatever_the_level(arena: Arena, name: str) -> None:
    """The same for those that ask nothing of the host."""
    attack(arena, name)


@pytest.mark.parametrize("arena", LEVELS, indirect=True)
def test_the_levels_hold_the_canary(arena: Arena) -> None:
    """The canary tries everything, nothing succeeds, and honest code works."""
    assert arena.isolation._first.zygote is not None
    result = canary.run(arena.isolation._first.zygote)
    assert result.passed, (result.summary(), result.denied)
    assert len(result.denied) >= 40


@pytest.mark.parametrize("name", [name for name in ATTACKS if name.startswith("weights/")])
def test_bad_weights_are_found_without_isolation_too(unfenced: Arena, name: str) -> None:
    """What a candidate's weights must be is checked from outside, so it holds with isolation switched off."""
    attack(unfenced, name)


def attack(arena: Arena, name: str) -> None:
    attack = Attack.read(name, arena.host.facts)
    before, processes = arena.host.fingerprint(), descendants()
    impatient = IMPATIENT if arena.level == STRONGEST and name in BY_CPU else MORE_IMPATIENT
    limits = impatient if "timeout" in attack.expected else PATIENT

    result = arena.run(attack.text, seed=attack.seed, limits=limits)

    kind = "accepted" if result.ok else result.kind
    if "nondeterministic" in attack.expected and result.ok:
        first = weights(result)
        again = arena.run(attack.text, seed=attack.seed, limits=limits, again=True)
        kind = ("nondeterministic" if weights(again) != first else "accepted") if again.ok else again.kind
    assert kind in attack.expected, (result.message, result.log)
    assert "ESCAPED" not in result.log
    assert arena.host.token not in result.log + result.message
    assert all(char.isprintable() or char in "\n\t" for char in result.log + result.message)
    if attack.seed:
        assert str(attack.seed) not in result.log
    assert arena.host.fingerprint() == before
    assert arena.processes <= descendants() <= processes
    if arena.level == STRONGEST:
        assert weights(arena.run(HONEST)) == arena.reference


def test_there_are_enough_attacks_and_each_says_what_it_tries() -> None:
    """A reader of the suite finds in every file what it is about and what must come of it."""
    assert len(ATTACKS) >= 40
    for name in ATTACKS:
        lines = (REGIONS / f"{name}{SUFFIX}").read_text().splitlines()
        assert lines[0].startswith('"""'), name
        assert any(line.startswith("# expect: ") for line in lines), name
        assert name not in AT_ANY_LEVEL or not any("HOST" in line for line in lines), f"{name} is about what is outside"


def test_the_security_page_names_every_attack() -> None:
    """Whoever reads SECURITY.md sees what was tried, no more and no less."""
    page = (REGIONS.parents[2] / "SECURITY.md").read_text()
    assert f"\n{len(ATTACKS)} hostile regions" in page
    named = re.findall(r"^- `(\w+)`:", page, re.MULTILINE)
    assert sorted(named) == sorted(name.rpartition("/")[2] for name in ATTACKS)
