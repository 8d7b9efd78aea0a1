"""A user's network: what names it, the text it is made of, and how each side of the trust boundary builds it.

The trusted process and the isolated one build it with the same seed and compare what the constructors made. torch is
imported inside functions, because every command imports this module.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import os
import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.sources import Source, provide
from benchmark.user_code import contained

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("torchvision", "timm")
"""Packages whose networks a task file can name. Isolation may read them."""


Role = Literal["layer", "conv", "identity", "norm", "branch", "gain", "skip_conv", "depthwise", "hidden", "head"]
"""What a number of the built-in search space can act on; see `benchmark.roles.found_roles`."""


class NetworkError(ValueError):
    """The network cannot be built or used. The message is one sentence that a task file's author understands."""


@dataclass(frozen=True)
class FoundRoles:
    """What a network has for the numbers of the built-in search space, as its module graph shows it."""

    roles: tuple[Role, ...]
    words: str
    """See `benchmark.roles.roles_in_words`."""
    traced: bool = True
    """Whether torch.fx can trace the network. If not, its residual branches are not known."""


@dataclass(frozen=True)
class Network:
    """A network that a task file names: `spec` is FILE:FUNCTION, torchvision:NAME, timm:NAME or one of our names."""

    spec: str
    num_classes: int | None
    """None for a task with a trainer of its own."""
    picture: tuple[int, int, int] | None = None
    """Channels, height, width of its input; None where a trainer of the user's own decides."""
    sources: tuple[Source, ...] = ()
    """The module of FILE first, then every module that it imports from the user's folder."""
    packages: tuple[str, ...] = ()
    """Import names of installed packages that isolation must be able to read."""
    versions: tuple[tuple[str, str], ...] = ()
    layout: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Name and shape of every parameter, as the trusted process built it."""
    constructed: str = ""
    """SHA-256 of what its constructors made with seed 0 in the trusted process."""
    found: FoundRoles | None = None
    """None in the log of a run that began before roles were looked for."""

    def identity(self) -> dict[str, Any]:
        """What determines the network: its text and the versions, no folder."""
        return {
            "spec": self.spec,
            "num_classes": self.num_classes,
            "picture": list(self.picture or ()),
            "sources": {source.name: hashlib.sha256(source.text.encode()).hexdigest() for source in self.sources},
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Network:
        """The network of a dict, such as `dataclasses.asdict` made, after its way through JSON; without its roles."""
        return cls(
            spec=str(fields["spec"]),
            num_classes=fields["num_classes"],
            picture=None if fields["picture"] is None else tuple(fields["picture"]),
            sources=tuple(Source(**source) for source in fields["sources"]),
            packages=tuple(fields["packages"]),
            versions=tuple((str(name), str(number)) for name, number in fields["versions"]),
            layout=tuple((str(name), tuple(shape)) for name, shape in fields["layout"]),
            constructed=str(fields["constructed"]),
        )


UNTRACED = (
    "torch.fx cannot trace it, so it counts as one without residual branches: where they begin and end is not known, "
    "and what an initialisation does to branches and shortcuts leaves it alone"
)
"""What is said of such a network."""


_building = threading.Lock()
"""The lanes of a process share the generators that constructors draw from, so one lane at a time builds."""


def construction_seed(seed: int) -> int:
    """The seed of a network's own constructors: 63 bits of SHA-256. The candidate and the trainer use other seeds."""
    return int.from_bytes(hashlib.sha256(f"construct:{seed}".encode()).digest()[:8], "big") >> 1


def build(network: Network, seed: int) -> nn.Module:
    """Build the network as its own constructors initialise it, with torch, numpy and random seeded by `seed`.

    The random state of this process changes. Raises NetworkError.
    """
    import numpy as np
    import torch

    number = construction_seed(seed)
    with _building, contained():
        torch.set_num_threads(1)  # some factorisations give other last digits with more
        make = _maker(network)
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)
        try:
            model = make()
        except BaseException as error:
            raise NetworkError(f"network {network.spec}: {described(error)}") from error
    return checked(network.spec, model)


def described(error: BaseException) -> str:
    """One line for an error of the user's own code: its type, its text, and the line of theirs that it came from."""
    try:
        text = " ".join(str(error).split())[:500]
    except Exception:  # noqa: BLE001 - an exception of the user's may fail at this, too
        text = ""
    if isinstance(error, ImportError) and (name := (error.name or "").partition(".")[0]) in _OURS:
        text += f"; {name} is a package of this project here, so a module of yours needs another name"
    line, frame = "", error.__traceback__
    while frame is not None:
        file = frame.tb_frame.f_code.co_filename
        if is_theirs(file):
            line = f" ({Path(file).name} line {frame.tb_lineno})"
        frame = frame.tb_next
    return f"{type(error).__name__}{': ' if text else ''}{text}{line}"


def is_theirs(file: str) -> bool:
    """Whether a file in a traceback is the user's own: no installed package, and not this project."""
    return not file.startswith(("<", *_NOT_THEIRS)) and "-packages" not in file


_ROOT = Path(__file__).parents[1]
_OURS = ("agent", "benchmark", "sandbox", "prompts", "initsearch")
_NOT_THEIRS = tuple(map(str, (Path(os.__file__).parent, _ROOT / "agent", _ROOT / "benchmark", _ROOT / "sandbox")))


_DOWNLOADING = ("urllib", "http", "socket", "requests", "httpx", "urllib3", "huggingface_hub", "hub", "ssl")


def what_it_does(error: NetworkError) -> str | None:
    """`reads files` or `downloads`, if that is what a constructor tried in isolation; else None."""
    cause: BaseException | None = error.__cause__
    while cause is not None:
        if isinstance(cause, OSError) or "can't start new thread" in str(cause):
            frame, files = cause.__traceback__, [type(cause).__module__]
            while frame is not None:
                files.append(frame.tb_frame.f_code.co_filename)
                frame = frame.tb_next
            names = {part for file in files for part in re.split(r"[/\\.]", file)}
            return "downloads" if names & {*_DOWNLOADING} else "reads files"
        cause = cause.__cause__ or cause.__context__
    return None


def checked(spec: str, model: object) -> nn.Module:
    """Return `model` if it can be searched. Raises NetworkError."""
    import torch
    from torch import nn
    from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

    if not isinstance(model, nn.Module):
        raise NetworkError(f"network {spec} returns {_article(type(model).__name__)}, not a torch.nn.Module")
    parameters = list(model.named_parameters())
    if not parameters:
        raise NetworkError(f"network {spec} has no parameters, so there is nothing to initialise")
    for name, value in (*parameters, *model.named_buffers()):
        if isinstance(value, UninitializedParameter | UninitializedBuffer):
            kind = "parameter" if isinstance(value, UninitializedParameter) else "buffer"
            raise NetworkError(
                f"network {spec}: {name} is a lazy {kind}, whose shape only a first batch decides; "
                "give the layer its sizes"
            )
    for name, parameter in parameters:
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            remedy = ""
            if parameter.dtype != torch.float32 and parameter.dtype.is_floating_point:
                remedy = "; .float() makes it so"
            elif not parameter.dtype.is_floating_point and not parameter.requires_grad:
                remedy = "; what is not trained belongs into register_buffer"
            raise NetworkError(
                f"network {spec}: {name} is {parameter.dtype} on {parameter.device}, not float32 on cpu{remedy}"
            )
    return model


def constructed_sha256(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, with their names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        if tensor.is_meta:
            continue  # it has no values
        plain = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
        digest.update(plain.cpu().resolve_conj().resolve_neg().contiguous().flatten().view(_uint8()).numpy().data)
    return digest.hexdigest()


def _uint8() -> Any:
    import torch

    return torch.uint8


def _maker(network: Network) -> Callable[[], object]:
    """A function without arguments that builds the network. Everything is imported before it is called."""
    from benchmark.models import ARCHITECTURES, build_model

    first, _, second = network.spec.partition(":")
    if not second:
        if first not in ARCHITECTURES:
            raise NetworkError(f"network {network.spec} is unknown")
        return lambda: build_model(first, network.num_classes or 0)
    if first == "torchvision":
        return _torchvision(network, second)
    if first == "timm":
        return _timm(network, second)
    return caller(network, users_function(network))


def users_function(network: Network) -> object:
    """The function of the user's that FILE:FUNCTION names, from the network's own text; None: the file has none.

    Raises NetworkError.
    """
    provide(network.sources)
    preload(network.packages)
    try:
        module = importlib.import_module(network.sources[0].name)
    except BaseException as error:
        raise NetworkError(f"network {network.spec} cannot be imported: {described(error)}") from error
    return getattr(module, network.spec.rpartition(":")[2], None)


def preload(packages: Iterable[str]) -> None:
    """Import torchvision and timm where a network needs them; a failure shows when the network imports them itself."""
    from benchmark.vision import import_networks

    for name in packages:
        if name in LIBRARIES:
            with contextlib.suppress(ImportError):
                import_networks(name)


def caller(network: Network, function: object) -> Callable[[], object]:
    """Call the user's function with num_classes, by name or by place. Raises NetworkError where it wants more."""
    file, _, name = network.spec.rpartition(":")
    if function is None:
        raise NetworkError(f"network {network.spec}: {file} has no function {name!r}")
    if not callable(function):
        raise NetworkError(f"network {network.spec}: {name} is no function")
    classes = network.num_classes
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return lambda: function(classes)
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    by_name = "num_classes" in parameters or (takes_any and classes is not None)
    keywords = {"num_classes": classes} if by_name else {}
    places = [] if by_name or classes is None else [classes]
    try:
        inspect.signature(function).bind(*places, **keywords)
    except TypeError as error:
        call = f"{name}(num_classes={classes})" if by_name or classes is not None else f"{name}()"
        raise NetworkError(
            f"network {network.spec} is called as {call}, but takes {inspect.signature(function)}: {error}"
        ) from None
    return lambda: function(*places, **keywords)


def _torchvision(network: Network, name: str) -> Callable[[], object]:
    from benchmark.vision import import_networks, install_command

    try:
        models: Any = import_networks("torchvision.models")
    except ImportError as error:
        raise NetworkError(
            f"network {network.spec}: torchvision cannot be imported ({error}); next: {install_command()}"
        ) from None
    if name not in models.list_models():
        raise NetworkError(f"network {network.spec}: torchvision has no classification network {name!r}")
    options: dict[str, Any] = {"weights": None}
    if network.num_classes is not None:
        options["num_classes"] = network.num_classes
    if network.picture is not None and name.startswith("vit"):
        options["image_size"] = network.picture[1]
    if name in ("inception_v3", "googlenet"):
        options |= {"init_weights": True, "aux_logits": False}
    return lambda: models.get_model(name, **options)


def _timm(network: Network, name: str) -> Callable[[], object]:
    from benchmark.vision import import_networks

    try:
        timm: Any = import_networks("timm")
    except ImportError as error:
        raise NetworkError(f"network {network.spec}: timm cannot be imported ({error}); pip install timm") from None
    if not timm.is_model(name):
        raise NetworkError(f"network {network.spec}: timm has no network {name!r}")
    options: dict[str, Any] = {"pretrained": False}
    if network.num_classes is not None:
        options["num_classes"] = network.num_classes
    if network.picture is not None:
        options["in_chans"] = network.picture[0]
        cfg = timm.models.get_pretrained_cfg(name)
        if cfg is not None and cfg.fixed_input_size:
            options["img_size"] = network.picture[1:]
    return lambda: timm.create_model(name, **options)


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
