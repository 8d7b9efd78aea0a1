"""Checks a model's server before anything is trained: address, proxies, key, model."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import openai

from agent.config import SearchConfig
from agent.errors import UsageError
from agent.llm.client import ChatClient
from agent.llm.errors import AccessRefused, ModelUnknown, ServerFailed
from agent.llm.settings import ModelSettings, model_settings
from agent.secrets import KEY_VARIABLE, read_key

_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy")
_OTHER_HEADERS = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
_WHOLE_HEADERS = "OPENAI_CUSTOM_HEADERS"
_ENDS = ("/v1", "/api/v1", "/openai/v1")
_TOKENS = 16
_SECONDS = 60.0  # a server may load the model first
_MOST_NAMES = 2000
_CERTIFICATES = {"SSL_CERT_FILE": Path.is_file, "SSL_CERT_DIR": Path.is_dir}


def contact(config: SearchConfig, environ: Mapping[str, str]) -> bool:
    """Find out whether the server of a search will answer, at no cost, or by a question of a few tokens.

    True when it lists the model and accepts the key, or answers the question. False when it is busy or broken, so that
    only the search's own question can tell. Raises UsageError when it refuses.
    """
    settings = model_settings(config, environ)
    _require_usable_environment(environ)
    try:
        client = ChatClient(settings, environ)
    except Exception as error:  # noqa: BLE001 - the HTTP library raises many types for wrong proxies and certificates
        raise UsageError(f"no connection can be made to {settings.base_url}: {error}{_surroundings()}") from None
    names: list[str] | None = None
    try:
        names = client.models()
        if names is None and not settings.base_url.endswith("/v1") and (other := _other_address(settings, environ)):
            raise UsageError(
                f"--base-url {settings.base_url}: nothing answers there as a model's server; did you mean {other}?"
            )
        if client.accepts_key() and names is not None and (not names or settings.model in names):
            return True
        short = replace(settings, answer_tokens=_TOKENS, request_seconds=min(settings.request_seconds, _SECONDS))
        return ChatClient(short, environ).answers_a_question()
    except ServerFailed as error:
        raise UsageError(f"{error}{_advice(error, settings, names, environ)}") from None


def _advice(error: ServerFailed, settings: ModelSettings, names: list[str] | None, environ: Mapping[str, str]) -> str:
    """What may be wrong when a server refuses, as the end of the error."""
    if isinstance(error.__cause__, openai.APIConnectionError):
        return _surroundings()
    if isinstance(error, AccessRefused) and not read_key(environ):
        return f"; {KEY_VARIABLE} is not set"
    model = settings.model
    about_key = isinstance(error, AccessRefused) and "model" not in str(error)
    if names and model not in names and not about_key:
        # The part behind the last / is compared: llama-3 is near to meta-llama/Llama-3.
        short = {name.rpartition("/")[2].lower(): name[:100] for name in reversed(names[:_MOST_NAMES])}
        meant = model.rpartition("/")[2].lower()
        near = difflib.get_close_matches(meant, short, n=3) or difflib.get_close_matches(meant, short, n=1, cutoff=0.0)
        return f"; of its {len(names)} models: did you mean {' or '.join(repr(short[name]) for name in near)}?"
    if isinstance(error, ModelUnknown) and not names:
        if other := _other_address(settings, environ):
            return f"; there are models at {other}: did you mean that?"
        return "; it lists no models either: is the address whole? Most end in /v1"
    return ""


def _require_usable_environment(environ: Mapping[str, str]) -> None:
    """Raise UsageError for an environment variable with which the HTTP library would fail later."""
    sent = {KEY_VARIABLE: read_key(environ) or "", **{name: os.environ.get(name, "") for name in _OTHER_HEADERS}}
    for name, value in sent.items():
        if odd := next((char for char in value if not "!" <= char <= "~"), None):
            raise UsageError(
                f"{name} holds the character U+{ord(odd):04X}, which no key has: was it copied with its quotation "
                "marks or a line break?"
            )
    if odd := next((char for char in os.environ.get(_WHOLE_HEADERS, "") if not char.isascii()), None):
        raise UsageError(f"{_WHOLE_HEADERS} holds the character U+{ord(odd):04X}, which no header has")
    for name in _PROXIES:
        value = os.environ.get(name, "").strip()
        try:
            scheme = urlsplit(value).scheme.lower() if "://" in value else ""  # host:port means http://
        except ValueError as error:
            raise UsageError(f"{name} holds no address of a proxy: {error}; correct it, or unset {name}") from None
        if not scheme or scheme in ("http", "https"):
            continue
        if scheme not in ("socks5", "socks5h"):
            raise UsageError(f"{name}: a proxy of the kind {scheme}:// cannot be used; use http://, or unset {name}")
        if importlib.util.find_spec("socksio") is None:
            raise UsageError(
                f"{name}: a {scheme}:// proxy needs the package socksio (pip install socksio); or unset {name}"
            )
    for name, exists in _CERTIFICATES.items():
        if (path := os.environ.get(name)) and not exists(Path(path)):
            kind = "file" if exists is Path.is_file else "folder"
            raise UsageError(f"{name}: {path} does not exist as a {kind}; correct it, or unset {name}")


def _surroundings() -> str:
    """The variables of the environment that change how a connection is made, as the end of an error."""
    found = [name for name in (*_PROXIES, *_CERTIFICATES, "SSLKEYLOGFILE") if os.environ.get(name)]
    return f"; it is made with {', '.join(found)} of the environment" if found else ""


def _other_address(settings: ModelSettings, environ: Mapping[str, str]) -> str | None:
    """An address beside this one that has a list of models."""
    bare = settings.base_url.removesuffix("/v1")
    for other in (bare + end for end in _ENDS):
        try:
            if (
                other != settings.base_url
                and ChatClient(replace(settings, base_url=other), environ).models() is not None
            ):
                return other
        except ServerFailed:
            continue
    return None
