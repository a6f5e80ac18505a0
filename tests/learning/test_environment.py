"""What a run was computed with: recorded whole, and when two of them promise the same bits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

import retrodict.core
from retrodict.learning.environment import describe_environment, machine_kind


def test_the_environment_names_the_versions_in_use() -> None:
    """As the interpreter and the imported libraries say themselves."""
    environment = describe_environment()
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["packages"]["numpy"] == np.__version__
    assert environment["packages"]["lightgbm"] == lightgbm.__version__


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"cores": 999, "threads": {"OMP_NUM_THREADS": "3"}}, True),
        ({"packages": {"pytest": "0"}}, True),
        ({"packages": {"numpy": "0"}}, False),
        ({"packages": {"lightgbm": "0"}}, False),
        ({"python": "2.7"}, False),
        ({"cpu": "abacus"}, False),
        ({"libc": "musl"}, False),
    ],
)
def test_machines_are_of_one_kind_where_bits_are_promised(change: dict[str, Any], same: bool) -> None:
    """CPU, C library, Python and number libraries decide; cores, threads and other packages do not."""
    here = describe_environment()
    other = {**here, **change, "packages": {**here["packages"], **change.get("packages", {})}}
    assert (machine_kind(here) == machine_kind(other)) is same


def test_an_edited_installation_is_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line in one file of the package moves its hash, a move of the whole folder does not."""
    hashes = []
    for folder, line in (("a", "x = 1"), ("b", "x = 1"), ("b", "x = 2")):
        (tmp_path / folder / "core").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "core" / "__init__.py").write_text("")
        (tmp_path / folder / "metrics.py").write_text(line)
        monkeypatch.setattr(retrodict.core, "__file__", str(tmp_path / folder / "core" / "__init__.py"))
        hashes.append(describe_environment()["retrodict"])
    assert hashes[0] == hashes[1] != hashes[2]
