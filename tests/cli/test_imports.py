"""What importing costs: a definitions module and ``--help`` load none of the heavy libraries."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

HEAVY = (
    *("cryptography", "deltalake", "duckdb", "lightgbm", "lmdb", "matplotlib", "numpy", "pandas", "pyarrow", "rich"),
    *("scipy", "sklearn", "sqlalchemy", "sqlglot", "uvicorn"),
)
QUIET = "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n    "


def loaded_after(code: str) -> list[str]:
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return [name for name in json.loads(done.stdout) if name in HEAVY]


@pytest.fixture
def cpu_seconds(environment: dict[str, str]) -> Callable[..., float]:
    """Processor time of a process of its own, compiled before, the least of eight.

    Wall time would measure what else the machine does.
    """

    def measure(*arguments: str) -> float:
        spent = []
        for _ in range(8):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True, timeout=60, env=environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(spent)

    return measure


@pytest.mark.parametrize(
    "code",
    [
        "import retrodict",
        "import retrodict\nfor n in retrodict.__all__:\n    n == 'Project' or getattr(retrodict, n)",
        "import retrodict.project.template.definitions",
        f"from retrodict.cli.main import run\n{QUIET}run(['--help'])\n    run(['runs', 'list', '--help'])",
    ],
    ids=["package", "every noun", "definitions module", "help"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    """Importing the package, its nouns, a definitions module, or asking for help loads no heavy library."""
    assert loaded_after(code) == []


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        (("-c", "import retrodict"), 8),
        (("-c", "import retrodict.project.template.definitions"), 18),
        (("-m", "retrodict", "--help"), 28),
    ],
    ids=["package", "definitions module", "help"],
)
def test_starting_is_quick(cpu_seconds: Callable[..., float], arguments: tuple[str, ...], most: int) -> None:
    """In starts of a bare interpreter, since machines differ: 150 and 300 ms where that takes 12 ms."""
    assert cpu_seconds(*arguments) < most * cpu_seconds("-c", "pass")


def test_every_noun_is_exported() -> None:
    """Every name of ``__all__`` is there, and a wrong one is an AttributeError that names it."""
    import retrodict

    assert all(getattr(retrodict, name) is not None for name in retrodict.__all__)
    assert sorted(retrodict.__all__) == dir(retrodict)
    with pytest.raises(AttributeError, match="'Experimint'"):
        _ = retrodict.Experimint
