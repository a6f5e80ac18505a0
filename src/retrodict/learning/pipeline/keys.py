"""The key of a step's execution: equal exactly when nothing differs that its result could depend on."""

from __future__ import annotations

import glob
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from retrodict.core.display import shorten
from retrodict.core.errors import NotFoundError
from retrodict.core.identity import canonical_json, digest, digest_file
from retrodict.learning.environment import describe_environment
from retrodict.learning.pipeline.code import code_of
from retrodict.learning.pipeline.definitions import PipelineStep
from retrodict.stores.objects.base import ObjectStore
from retrodict.workspace import Workspace

__all__ = ["KeyMaker", "Parts", "contents", "differences"]

Parts = dict[str, dict[str, str]]
"""What a key is made of, by kind and name: ``code``, ``params``, ``inputs``, ``tables``, ``state``, ``environment``."""


class KeyMaker:
    """Makes the keys of one run, with its code and its environment.

    Parameters
    ----------
    workspace : Workspace
    code : str
        SHA-256 of the project's code.
    """

    def __init__(self, workspace: Workspace, code: str) -> None:
        body = json.loads(workspace.objects.get(code))
        self._files, self._main = body["files"], body["definitions"]
        self._copy = f"{workspace.root / 'state' / 'code' / code}/"
        facts = describe_environment(project=workspace.root)
        lock = {**facts["packages"], "python": facts["python"], "platform": facts["platform"],
                "retrodict's code": facts["retrodict"]}  # fmt: skip
        self._lock = workspace.objects.put(canonical_json(lock))

    def parts(self, step: PipelineStep, inputs: Mapping[str, Any], partition: str, state: Mapping[str, str]) -> Parts:
        """What an execution depends on: limits, retries and order are none of it.

        Parameters
        ----------
        step : PipelineStep
            Of a function: as it was loaded from the captured code.
        inputs : mapping
            Outputs and tables by argument.
        partition : str
            Empty where there is none.
        state : mapping of str to str
            What a noun reads beside these.
        """
        code: dict[str, str] = {}
        function: Any = step.function
        while function is not None:  # a decorator's wrapper, and what it wraps
            path = function.__code__.co_filename.removeprefix(self._copy)
            name = function.__code__.co_qualname.partition(".")[0]  # functools.wraps copies the other names
            inner = getattr(function, "__wrapped__", None)
            if path in self._files:
                texts = code_of(self._files, self._main.rpartition("/")[0], path, name, entry=inner is None)
            else:  # of an installed package
                texts = {f"{PurePath(path).name}:{name}": inspect.getsource(function.__code__)}
            code |= {place: digest(text.encode()) for place, text in texts.items()}
            function = inner
        return {
            "code": code,
            "params": {"noun": step.noun, **{name: _plain(value) for name, value in step.params}},
            "inputs": {name: entry["digest"] for name, entry in inputs.items() if "digest" in entry},
            "tables": {entry["table"].partition("@")[0]: entry["table"].partition("@")[2]
                       for entry in inputs.values() if "table" in entry},
            "state": dict(state),
            "partition": {"name": partition},
            "environment": {"lock": self._lock},
        }  # fmt: skip


def contents(root: Path, name: str) -> dict[str, str]:
    """Hash of every file of a pattern, a folder or a path, by path; each from the project's folder."""
    path = root / name  # 'a[1].csv' may be a name
    paths = path.rglob("*") if path.is_dir() else [path] if path.exists() else (
        root / match for match in glob.glob(name, root_dir=root, recursive=True))  # fmt: skip
    return {os.path.relpath(file, root): digest_file(file) for file in sorted(paths) if file.is_file()}


def _plain(value: Any) -> str:
    """A parameter as text in which a tuple is no list."""
    return json.dumps(value) if json.loads(json.dumps(value)) == value else repr(value)


def differences(before: Parts, now: Parts, objects: ObjectStore) -> list[str]:
    """What differs between two executions, in words, the cause most often meant first."""
    sentences = []
    for kind in now:
        old, new = before.get(kind, {}), now[kind]
        names = [name for name in dict.fromkeys([*new, *old]) if old.get(name) != new.get(name)]
        if not names:
            continue
        if kind == "code":
            sentences.append(f"code changed: {', '.join(names)}")
        elif kind == "inputs":
            sentences += [f"input {name} changed" for name in names]
        elif kind == "environment":
            sentences.append(f"environment changed: {_packages(old, new, objects)}")
        else:
            form = "{}@{} → @{}" if kind == "tables" else "{} {} → {}"
            sentences += [shorten(form.format(name, old.get(name, "-"), new.get(name, "-"))) for name in names]
    return sentences


def _packages(old: Mapping[str, str], new: Mapping[str, str], objects: ObjectStore) -> str:
    try:
        before, now = (json.loads(objects.get(part["lock"])) for part in (old, new))
    except (KeyError, NotFoundError):
        return "not known how"
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    texts = [shorten(f"{name} {before.get(name, '-')} → {now.get(name, '-')}") for name in names[:3]]
    return ", ".join([*texts, *([f"{len(names) - 3} more"] if len(names) > 3 else [])])
