"""Checks a model's server before anything is trained: address, proxies, key, model."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from agent.config import SearchConfig
from agent.errors import UsageError
from agent.llm.client import ChatClient
from agent.llm.errors import AccessRefused, ModelUnknown, ServerFailed
from agent.llm.settings import ModelSettings, model_settings
from agent.secrets import KEY_VARIABLE, read_key

_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
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
        raise UsageError(f"no connection can be made to {settings.base_url}: {error}") from None
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
        hint = "" if read_key(environ) or not isinstance(error, AccessRefused) else f"; {KEY_VARIABLE} is not set"
        raise UsageError(f"{error}{hint}") from None
    return known and (not names or settings.model in names) and names is not None


def _require_usable_environment(environ: Mapping[str, str]) -> None:
    """Raise UsageError for an environment variable with which the HTTP library would fail later."""
    key = read_key(environ) or ""
    if odd := next((char for char in key if not "!" <= char <= "~"), None):
        raise UsageError(
            f"{KEY_VARIABLE} holds the character U+{ord(odd):04X}, which no key has: was it copied with its quotation "
            "marks or a line break?"
        )
    for name in (*_PROXIES, *map(str.lower, _PROXIES)):
        scheme = urlsplit(os.environ.get(name, "").strip()).scheme.lower()
        if not scheme or scheme in ("http", "https"):
            continue
        if scheme not in ("socks5", "socks5h"):
            raise UsageError(f"{name}: a proxy of the kind {scheme}:// cannot be used; use http://, or unset {name}")
        if importlib.util.find_spec("socksio") is None:
            raise UsageError(
                f"{name}: a {scheme}:// proxy needs the package socksio (pip install socksio); or unset {name}"
            )
    for name, exists in _CERTIFICATES.items():
        if (value := os.environ.get(name)) and not exists(Path(value)):
            raise UsageError(f"{name}: {value} does not exist; correct it, or unset {name}")


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
