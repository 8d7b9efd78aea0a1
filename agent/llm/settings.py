"""The settings of a search's language model: its server, and limits on tokens and cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.config import SearchConfig
from agent.errors import UsageError
from agent.secrets import KEY_VARIABLE, read_key

_OPENAI = "https://api.openai.com/v1"
_NOT_IN_ADDRESSES = "\\ \"'`<>\u201c\u201d\u2018\u2019"
_PLACEHOLDER = "none"  # the openai package requires a key; a server without keys ignores it


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens that the model reads (`prompt`) and writes (`completion`)."""

    prompt: float
    completion: float

    @classmethod
    def parse(cls, text: str) -> Price:
        """Parse a price such as `0.28/0.42`. Raises UsageError for anything else."""
        try:
            prompt, completion = (float(part) for part in text.split("/"))
        except ValueError:
            prompt = completion = -1.0
        if not (0 <= prompt < 1e6 and 0 <= completion < 1e6):
            raise UsageError(f"--price {text}: expected IN/OUT, dollars for a million tokens each, such as 0.28/0.42")
        return cls(prompt, completion)

    def cost(self, prompt: int, completion: int) -> float:
        """Cost of these numbers of tokens, in dollars."""
        return (prompt * self.prompt + completion * self.completion) / 1e6


@dataclass(frozen=True)
class ModelSettings:
    """A model, its server, and the parameters of a request."""

    model: str
    base_url: str
    seed: int = 0
    temperature: float | None = None
    answer_tokens: int = 16384
    """The most tokens of one answer, with its reasoning."""
    request_seconds: float = 300.0
    """Wall time in seconds after which one attempt ends."""


@dataclass(frozen=True)
class SpendingLimits:
    """Limits on tokens and dollars for a whole search. None: no limit."""

    tokens: int | None = None
    cost: float | None = None
    price: Price | None = None


def model_settings(config: SearchConfig, environ: Mapping[str, str] = os.environ) -> ModelSettings:
    """The model that `config` names. Raises UsageError when its name, or a key that the server needs, is missing."""
    base_url = address(config, environ)
    if config.model is None or not config.model.strip():  # such as an unset variable of a script
        raise UsageError(
            f"--proposer {config.proposer} needs --model NAME (or INITSEARCH_MODEL, or model in the TOML file); "
            "for a server of your own add --base-url http://localhost:PORT/v1"
        )
    if base_url == _OPENAI and read_key(environ) is None:
        raise UsageError(
            f"{KEY_VARIABLE} is not set: {base_url} needs a key. Export it, or name a server that needs none with "
            "--base-url http://localhost:PORT/v1"
        )
    return ModelSettings(
        model=config.model,
        base_url=base_url,
        seed=config.seed,
        temperature=config.temperature,
        answer_tokens=config.answer_tokens,
        request_seconds=config.request_seconds,
    )


def limits(config: SearchConfig) -> SpendingLimits:
    """The limits that `config` sets. Raises UsageError for a limit on cost without a price."""
    price = Price.parse(config.price) if config.price is not None else None
    if config.max_cost is not None and price is None:
        raise UsageError("--max-cost needs --price IN/OUT: dollars for a million tokens in and out, such as 0.28/0.42")
    return SpendingLimits(config.max_tokens, config.max_cost, price)


def key_or_placeholder(environ: Mapping[str, str]) -> str:
    """The key, or a placeholder when there is none."""
    return read_key(environ) or _PLACEHOLDER


def address(config: SearchConfig, environ: Mapping[str, str]) -> str:
    """The server's base URL. Raises UsageError when it is no URL, or contains a secret, which a log would keep."""
    url = (config.base_url or environ.get("OPENAI_BASE_URL", "").strip() or _OPENAI).rstrip("/")
    if odd := next((char for char in url if char in _NOT_IN_ADDRESSES or not char.isprintable()), None):
        raise UsageError(f"--base-url {url!r}: {odd!r} does not belong in an address")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"--base-url {url}: {error}") from None
    if "@" in parts.netloc or parts.query:
        raise UsageError(
            f"--base-url: user, password and query do not belong there, since the address is kept in the run; "
            f"put the key into {KEY_VARIABLE}"
        )
    for tail in ("/chat/completions", "/completions", "/chat", "/models", "/responses", "/messages"):
        if parts.path.endswith(tail):
            raise UsageError(f"--base-url {url}: leave out the end {tail}: {url.removesuffix(tail)}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--base-url {url}: expected something like http://localhost:8080/v1")
    return url
