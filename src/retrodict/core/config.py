"""``retrodict.toml``: read once, checked against a table of settings, each error with file, line and key.

The settings are data (``SETTINGS``), so that the documentation test can hold the docs page to them. pydantic was
rejected: it costs more than the whole import budget for a dozen keys.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from retrodict.core.definition import check_name
from retrodict.core.durations import parse_duration
from retrodict.core.errors import ConfigurationError, InputError, RetrodictError, check_known

__all__ = ["CONFIG_NAME", "SETTINGS", "Config", "Setting", "find_config", "read_config"]

CONFIG_NAME = "retrodict.toml"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_server(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"https?://[^/?#@\\\s]+", value) is not None


def _is_inner_module(value: object) -> bool:
    if not isinstance(value, str) or not value.endswith(".py"):
        return False
    path = PurePath(value)
    return not path.is_absolute() and ".." not in path.parts


def _whole(least: int, largest: float = math.inf) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= largest


def _is_workers(value: object) -> bool:
    ends = re.fullmatch(r"(\d{1,2})-(\d{1,2})", value) if isinstance(value, str) else None
    return value == "auto" or _whole(1, 32)(value) or (ends is not None and 1 <= int(ends[1]) <= int(ends[2]) <= 32)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: its default (None: required), the rule in words, the rule as a test, and what it is for."""

    default: Any
    rule: str
    holds: Callable[[object], bool]
    doc: str


def _duration(default: str, longest: str, doc: str) -> Setting:
    def is_within(value: object) -> bool:
        try:
            return 0 < parse_duration(str(value)) <= parse_duration(longest)
        except InputError:
            return False

    return Setting(default, f"a duration such as {default!r}, {longest} at most", is_within, doc)


SETTINGS: Mapping[str, Setting] = {
    "project.name": Setting(
        None, "a name of lower-case letters, digits and underscores", _is_text, "Name of the project"
    ),
    "project.definitions": Setting(
        "definitions.py",
        "the path of a Python file (.py) inside the project's folder, relative to it",
        _is_inner_module,
        "The module that says what the project is",
    ),
    "stores.tables": Setting("state/tables", "a folder or a URL", _is_text, "Versioned tables (Delta)"),
    "stores.records": Setting(
        "state/records.db",
        "a file or a URL",
        _is_text,
        "Ledger, runs, registry, deployments (SQLite, or PostgreSQL by URL)",
    ),
    "stores.keys": Setting("state/keys", "a folder or a URL", _is_text, "Online feature state (LMDB, or Redis by URL)"),
    "stores.objects": Setting(
        "state/objects", "a folder or a URL", _is_text, "Artifacts by content (files, or a bucket by URL)"
    ),
    "stores.streams": Setting(
        "state/streams", "a folder or a URL", _is_text, "Decisions out (segment files, or NATS by URL)"
    ),
    "stores.events": Setting(
        "state/streams", "a folder or a URL", _is_text, "Events in (segment files, or NATS or Kafka by URL)"
    ),
    "stores.scores": Setting(
        "", "a redis:// URL", _is_text, "Scores that processes and machines share (Redis by URL); none by default"
    ),
    "servers.read_timeout": _duration(
        "1s", "1h", "How long a read waits for Redis, or for features or models elsewhere"
    ),
    "servers.retries": Setting(
        2, "a whole number from 0 to 10", _whole(0, 10), "How often a read of keys that found no server is tried again"
    ),
    "servers.retry_strategy": Setting(
        "exponential_jitter",
        "exponential_jitter, exponential, linear or fixed",
        lambda value: value in ("exponential_jitter", "exponential", "linear", "fixed"),
        "How the pauses before retries grow",
    ),
    "servers.retry_base": _duration("20ms", "1m", "First pause before a retry"),
    "servers.retry_cap": _duration("1s", "10m", "Longest pause before a retry"),
    "servers.breaker_failures": Setting(
        5, "a whole number, 1 or more", _whole(1), "Failures in a row after which a server is not called for a while"
    ),
    "servers.breaker_recovery": _duration("5s", "1h", "How long it is not called, before one call looks again"),
    "ledger.checkpoints": Setting(
        "checkpoints", "a folder, best outside the machine's own disk", _is_text, "Where signed checkpoints are written"
    ),
    "ledger.witnesses": Setting(
        [], "a list of folders and s3:// URLs", _is_texts, "Other places to which every checkpoint goes"
    ),
    "ledger.key": Setting(
        "state/ledger.key", "the path of a file", _is_text, "Ed25519 key that signs checkpoints, made on first use"
    ),
    "ledger.sign_every": _duration("1s", "1m", "How old a logged decision becomes at most before it is signed"),
    "ledger.seal_every": _duration("5m", "1h", "How old an open segment of the decision log becomes at most"),
    "features.horizon": _duration(
        "24h", "10000d", "How long before the newest event became visible a request may still ask for exact features"
    ),
    "features.partitions": Setting(
        1, "a whole number from 1 to 64", _whole(1, 64), "Into how many partitions online state is cut"
    ),
    "training.threads": Setting(
        0, "a whole number from 0 to 1024", _whole(0, 1024), "Threads of trainings by command; 0: as many as cores"
    ),
    "auth.required": Setting(
        "network",
        "network or always",
        lambda value: value in ("network", "always"),
        "Which callers must say who they are: those of a network, or those on this machine too",
    ),
    "auth.jwks": Setting("", "a path or an https:// URL", _is_text, "Public keys whose signed tokens are taken (JWKS)"),
    "auth.issuer": Setting("", "text", _is_text, "Who must have signed a token: its claim iss"),
    "auth.audience": Setting("", "text", _is_text, "Whom a token must be for: its claim aud"),
    "serving.certificate": Setting("", "the path of a file", _is_text, "Certificate chain (PEM): callers come by TLS"),
    "serving.certificate_key": Setting("", "the path of a file", _is_text, "Private key of the certificate (PEM)"),
    "serving.traces": Setting(
        "",
        "an http:// or https:// URL",
        lambda value: isinstance(value, str) and value.startswith(("http://", "https://")),
        "Collector of OpenTelemetry that gets a trace of each request (OTLP over HTTP); none by default",
    ),
    "serving.host": Setting("127.0.0.1", "a host name or an address", _is_text, "Address to listen on"),
    "serving.port": Setting(
        8400, "a whole number from 0 (any free port) to 65535", _whole(0, 65535), "Port to listen on"
    ),
    "serving.grpc_port": Setting(
        -1, "a whole number from 0 (any free port) to 65535, or -1 for none", _whole(-1, 65535), "Port for gRPC, if any"
    ),
    **{
        f"serving.{part}_url": Setting(
            "", "a server like 'http://host:8400'", _is_server, f"Server of {part} that 'serve --only decisions' asks"
        )
        for part in ("features", "models")
    },
    "serving.max_body_bytes": Setting(
        65536, "a whole number of bytes, 1 or more", _whole(1), "Longest request body that is read"
    ),
    "serving.cached_scores": Setting(
        10_000, "a whole number, 1 or more", _whole(1), "Scores that the cache of a policy holds, if it has one"
    ),
    "serving.warm_cache": Setting(
        False, "true or false", lambda value: isinstance(value, bool), "Fill a cache from the newest decisions at start"
    ),
    "serving.max_batch": Setting(
        1000, "a whole number, 1 or more", _whole(1), "Most requests in the body of one batch"
    ),
    "serving.request_ids_kept": _duration("24h", "10000d", "How long the same request id gives the same answer"),
    "serving.max_jobs": Setting(
        100,
        "a whole number, 0 or more",
        _whole(0),
        "Most jobs at a time, of all callers, those among them whose answers are kept",
    ),
    "serving.callbacks": Setting(
        [],
        "a list of servers like 'https://hooks.example'",
        lambda value: isinstance(value, list) and all(map(_is_server, value)),
        "Servers that a job may call when it has ended; no other one is called",
    ),
    "serving.callback_secret": Setting(
        "", "the name of an environment variable", _is_text, "Variable with the secret that signs these calls"
    ),
    "serving.max_in_flight": Setting(
        256, "a whole number, 1 or more", _whole(1), "Requests worked on at once; more are answered 429"
    ),
    "serving.max_wait": _duration(
        "250ms",  # a pause of the disk or of a batch is no overload
        "1m",
        "How long a request may wait for its turn, and a queue four times over; else it is 429",
    ),
    "serving.workers": Setting(
        1,
        "a whole number from 1 to 32, a range like '2-8', or 'auto'",
        _is_workers,
        "Processes that answer, from one port and with a log each; of a range as many as the load asks for",
    ),
}


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one project: every key of ``SETTINGS``, defaults filled in.

    Attributes
    ----------
    root : Path
        Folder that holds ``retrodict.toml``; relative paths in it start here.
    values : mapping of str to object
        Dotted key to value.
    """

    root: Path
    values: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def path(self, key: str) -> Path:
        """Value of a path setting, absolute; ``~`` is the home folder."""
        path = self.root / Path(str(self.values[key])).expanduser()
        return Path(os.path.realpath(path))  # a link that leads to itself is for whoever opens it to say

    def place(self, key: str) -> str:
        """Where a setting is written, for errors: file, line and key."""
        path = self.root / CONFIG_NAME
        try:
            line = _line_of(path.read_text(encoding="utf-8"), key)
        except (OSError, UnicodeDecodeError):  # it was there when it was read
            line = 1
        return f"{path}:{line}, key {key!r}"


def find_config(start: Path) -> Path:
    """Nearest ``retrodict.toml`` in a folder or above it.

    Raises
    ------
    ConfigurationError
        If the folder does not exist, or no file of that name is found.
    """
    start = start.resolve()
    if not start.is_dir():
        raise ConfigurationError(
            "the folder of a project must exist",
            where=str(start),
            remedy="Check its name, or make it with 'retrodict init'",
            got="no such folder",
        )
    for folder in (start, *start.parents):
        if os.path.lexists(folder / CONFIG_NAME):  # what is no file is refused by its reader, not passed over
            return folder / CONFIG_NAME
    raise ConfigurationError(
        f"a project must be a folder with a {CONFIG_NAME}, and neither this folder nor one above it has one",
        where=str(start),
        remedy="Make one with 'retrodict init DIR', or name the folder with --project",
        got=f"no {CONFIG_NAME}",
    )


def _line_of(text: str, key: str) -> int:
    """Line of a dotted key in TOML text, its section's if it stands in an inline table; tomllib keeps no positions."""
    section, _, name = key.rpartition(".")
    current, heading_at = "", 1
    word = r"\s*[\"']?{}[\"']?\s*"
    in_section = word.format(re.escape(name)) + "[=.]"
    above = word.format(re.escape(section)) + f"(=|[.]{word.format(re.escape(name))}=)"  # inline table, dotted key
    for number, line in enumerate(text.splitlines(), start=1):
        if heading := re.match(r"\s*\[+([^\[\]]+)\]", line):
            current = heading.group(1).strip().strip("\"'")
            if current == key:
                return number
            heading_at = number if current == section else heading_at
        elif (current == section and re.match(in_section, line)) or (current == "" and re.match(above, line)):
            return number
    return heading_at


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key; a section of that is none of ours stays whole, so that it is reported even if empty."""
    sections = {key.partition(".")[0] for key in SETTINGS}
    flat: dict[str, Any] = {}
    for section, body in tree.items():
        if isinstance(body, dict) and (body or section in sections):
            flat.update({f"{section}.{name}": value for name, value in body.items()})
        else:
            flat[section] = body
    return flat


def _read_text(path: Path) -> str:
    if path.exists() and not path.is_file():  # reading a FIFO or a device could wait for ever
        raise ConfigurationError(
            "the file must be a regular one", where=str(path), got="something else", remedy="Take away what is there"
        )
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(
            "the file must exist",
            where=str(path),
            remedy="Make a project with 'retrodict init DIR'",
            got="no such file",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            "the file must be text in UTF-8", where=str(path), got=error.reason, remedy="Save it as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            "the file must be readable", where=str(path), got=error.strerror, remedy="Check its permissions"
        ) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        location = re.search(r" \(at line (\d+), column (\d+)\)", str(error))
        place = f":{location[1]}" if location else ""
        rule = str(error).replace(location[0], f" at column {location[2]}") if location else str(error)
        raise ConfigurationError(
            f"the file must be TOML ({rule})",
            where=f"{path}{place}",
            remedy="Correct the line; see https://toml.io",
            got="a line that is not",
        ) from error


def read_config(path: Path) -> Config:
    """Read and check a ``retrodict.toml``.

    Raises
    ------
    ConfigurationError
        If the file is missing or not TOML, holds an unknown key, lacks a required one or breaks the rule of one.
    """
    text = _read_text(path)
    entries = _flatten(_parse(path, text))
    for key, value in entries.items():
        where = f"{path}:{_line_of(text, key)}, key {key!r}"
        rule = "the key must be one of those that exist"
        check_known(key, SETTINGS, rule, where=where, what="key", error=ConfigurationError)
        if not SETTINGS[key].holds(value):
            # The URL of a store can hold a password, in whatever type it was written.
            value_text = type(value).__name__ if key.startswith("stores.") else value
            raise ConfigurationError(
                f"the value must be {SETTINGS[key].rule}", where=where, got=value_text, remedy="Correct the line"
            )
    missing = [key for key, setting in SETTINGS.items() if setting.default is None and key not in entries]
    if missing:
        raise ConfigurationError(
            "a required key must be in the file",
            where=f"{path}, key {missing[0]!r}",
            remedy=f"Add {missing[0]} to the file",
            got=sorted(entries),
        )
    try:
        check_name(entries["project.name"], what="project.name")
    except RetrodictError as error:
        where = f"{path}:{_line_of(text, 'project.name')}, key 'project.name'"
        raise ConfigurationError(error.rule, where=where, got=entries["project.name"], remedy=error.remedy) from error
    return Config(path.resolve().parent, {key: entries.get(key, setting.default) for key, setting in SETTINGS.items()})
