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
_CERTIFICATES = {"SSL_CERT_FILE": Path.is_file, "SSL_CERT_DIR": Path.is_dir}


def contact(config: SearchConfig, environ: Mapping[str, str]) -> bool:
    """Find out, at no cost, whether the server of a search will answer.

    True when the server listed the model and accepted the key. False when only a real request can tell. Raises
    UsageError when the server will not answer.
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
        if names is None:
            _suggest_address(settings, environ)
        known = client.knows_us()
    except ModelUnknown as error:
        near = difflib.get_close_matches(settings.model, names or [], n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UsageError(f"{error}{hint}") from None
    except ServerFailed as error:
        hint = f"; {KEY_VARIABLE} is not set" if isinstance(error, AccessRefused) and not read_key(environ) else ""
        unreached = isinstance(error.__cause__, openai.APIConnectionError)
        raise UsageError(f"{error}{_surroundings() if unreached else hint}") from None
    return known and (not names or settings.model in names) and names is not None


def _require_usable_environment(environ: Mapping[str, str]) -> None:
    """Raise UsageError for an environment variable with which the HTTP library would fail later."""
    sent = {KEY_VARIABLE: read_key(environ) or "", **{name: os.environ.get(name, "") for name in _OTHER_HEADERS}}
    for name, value in sent.items():
        if odd := next((char for char in value if not "!" <= char <= "~"), None):
            raise UsageError(
                f"{name} holds the character U+{ord(odd):04X}, which no key has: was it copied with its quotation "
                "marks or a line break?"
            )
    for name in _PROXIES:
        try:
            scheme = urlsplit(os.environ.get(name, "").strip()).scheme.lower()
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
    found = [name for name in (*_PROXIES, *_CERTIFICATES) if os.environ.get(name)]
    return f"; it is made with {', '.join(found)} of the environment" if found else ""


def _suggest_address(settings: ModelSettings, environ: Mapping[str, str]) -> None:
    """Raise UsageError when there is a list of models under /v1 but not at this address."""
    if settings.base_url.endswith("/v1"):
        return
    other = f"{settings.base_url}/v1"
    try:
        found = ChatClient(replace(settings, base_url=other), environ).models()
    except ServerFailed:
        return
    if found is not None:
        raise UsageError(
            f"--base-url {settings.base_url}: nothing answers there as a model's server; did you mean {other}?"
        )
