"""What a run was computed with: interpreter, libraries, machine, threads. Part of its identity, kept as one object."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import retrodict.core
from retrodict.core.identity import canonical_json, digest, digest_file

__all__ = ["describe_environment", "environment_bytes", "machine_kind"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE", "PYTHONHASHSEED")


def describe_environment() -> dict[str, Any]:
    """Plain description, equal on two machines exactly where results may be expected to be equal bit for bit."""
    packages = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return {
        "python": sys.version.split()[0],
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": {name: os.environ[name] for name in _THREADS if name in os.environ},
        "packages": dict(sorted(packages.items())),
        "retrodict": _package_hash(),
    }


def environment_bytes() -> bytes:
    """Canonical JSON of :func:`describe_environment`."""
    return canonical_json(describe_environment())


def machine_kind(environment: dict[str, Any]) -> tuple[Any, ...]:
    """What two machines share when bit-identical results are promised: CPU, C library, Python and number libraries."""
    packages = environment["packages"]
    numeric = tuple(packages.get(name) for name in ("lightgbm", "numpy", "pyarrow", "scikit-learn", "scipy", "duckdb"))
    return (environment["platform"], environment["cpu"], environment["libc"], environment["python"], numeric)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _package_hash() -> str:
    """SHA-256 over our own source files: an edited installation is another environment."""
    root = Path(retrodict.core.__file__).parents[1]
    files = sorted(path for path in root.rglob("*.py"))
    return digest("\n".join(f"{p.relative_to(root).as_posix()} {digest_file(p)}" for p in files).encode())
