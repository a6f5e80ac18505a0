"""What a run was computed with: interpreter, libraries, machine, threads. Part of its identity, kept as one object.

What is installed is not what runs: a folder earlier on the path hides a package. So the libraries that numbers depend
on are asked themselves, after they were imported.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import retrodict.core
from retrodict.core.identity import canonical_json, digest, digest_file

__all__ = [
    "containerfile",
    "describe_environment",
    "environment_bytes",
    "environment_differences",
    "machine_kind",
    "requirements",
]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE", "PYTHONHASHSEED")


# Package to the module by which it is imported: what results depend on bit for bit.
_NUMERIC = {
    "lightgbm": "lightgbm",
    "numpy": "numpy",
    "pyarrow": "pyarrow",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "duckdb": "duckdb",
}
# Those of extras, asked where a training uses them. What else happens to be loaded is no part of a training's identity:
# the same one would differ from itself after another, or after a library that imports all others.
_EXTRAS = {"deep": ("torch", "torch"), "xgboost": ("xgboost-cpu", "xgboost"), "catboost": ("catboost", "catboost"),
           "balance": ("imbalanced-learn", "imblearn")}  # fmt: skip
_OPTIONAL = [package for package, _ in _EXTRAS.values()]


def describe_environment(
    *, project: Path | None = None, load: bool = True, extras: Iterable[str] | None = None
) -> dict[str, Any]:
    """Plain description, equal on two machines exactly where results may be expected to be equal bit for bit.

    Parameters
    ----------
    project : Path, optional
        Folder whose modules are left out: a run keeps them as its code.
    load : bool, default True
        Whether libraries that numbers depend on are imported, to see which they are; False describes those that are
        loaded, which takes seconds less.
    extras : iterable of str, optional
        Extras whose libraries the work will use: they are imported too, where they are installed, and no others are
        described. None: those whose libraries are loaded.

    Returns
    -------
    dict
        ``packages``: versions of what is installed. ``imported``: of each library that numbers depend on the file that
        was imported, its own version, and the package it belongs to (None: another one lies earlier on the path).
        ``modules``: file and SHA-256 of each loaded module that belongs to no installed package.
    """
    optional = dict(_EXTRAS[name] for name in (_EXTRAS if extras is None else extras) if name in _EXTRAS)
    for module in optional.values() if extras is not None else ():
        with contextlib.suppress(ImportError):  # the work itself says what is missing
            importlib.import_module(module)
    packages: dict[str, str] = {}
    folders: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        if name := distribution.metadata["Name"]:
            # In the order of the path: the first is the one that is imported.
            packages.setdefault(name.lower(), distribution.version)
            folders.setdefault(name.lower(), str(distribution.locate_file("")))
    return {
        "python": sys.version.split()[0],
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": {name: os.environ[name] for name in _THREADS if name in os.environ},
        "packages": dict(sorted(packages.items())),
        "imported": {
            name: _imported(module, name, folders.get(name))
            for name, module in {**_NUMERIC, **optional}.items()
            if (load and name in _NUMERIC) or module in sys.modules
        },
        "modules": dict(sorted(_loose_modules(project))),
        "retrodict": _package_hash(),
        "accelerators": _accelerators() if "torch" in optional else [],
    }


def environment_bytes(*, project: Path | None = None, load: bool = True, extras: Iterable[str] | None = None) -> bytes:
    """Canonical JSON of :func:`describe_environment`."""
    return canonical_json(describe_environment(project=project, load=load, extras=extras))


def _imported(module: str, package: str, folder: str | None) -> dict[str, Any]:
    library = importlib.import_module(module)
    file = Path(str(library.__file__)).resolve()
    owned = folder is not None and file.is_relative_to(Path(folder).resolve())
    version = getattr(library, "__version__", None)
    return {"file": str(file), "version": version, "package": package if owned else None}


def _loose_modules(project: Path | None) -> Iterator[tuple[str, dict[str, str]]]:
    """Loaded modules of no installed package: a version says nothing of them, their text does."""
    installed: list[str] = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed += [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
    left_out = {Path(folder).resolve() for folder in installed} | {Path(retrodict.core.__file__).resolve().parents[1]}
    # Of the thousands of modules nearly all are installed: their paths need not be resolved to see it.
    prefixes = tuple(f"{folder}{os.sep}" for folder in (*installed, *left_out))
    if project is not None:
        left_out.add(project.resolve())
    for name, module in list(sys.modules.items()):
        text = getattr(module, "__file__", None)
        if (
            name in ("__main__", "__mp_main__")
            or not isinstance(text, str)
            or not text.endswith(".py")
            or text.startswith(prefixes)
        ):
            continue
        file = Path(text).resolve()
        if file.is_file() and left_out.isdisjoint(file.parents):
            yield name, {"file": str(file), "sha256": digest_file(file)}


def machine_kind(environment: dict[str, Any]) -> tuple[Any, ...]:
    """What two machines share when bit-identical results are promised: CPU, C library, Python and number libraries."""
    numeric = tuple(_version(environment, name) for name in _NUMERIC)
    return (environment["platform"], environment["cpu"], environment["libc"], environment["python"], numeric)


def _version(environment: dict[str, Any], package: str) -> Any:
    """Version that was imported; records of before it was noted have that of the installed package."""
    return environment.get("imported", {}).get(package, {}).get("version") or environment["packages"].get(package)


def environment_differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words, what of two environments differs that results may depend on; the most likely reasons first."""
    differences = []
    for name in (*_NUMERIC, *_OPTIONAL):
        before, after = (environment.get("imported", {}).get(name, {}) for environment in (then, now))
        shadowed = bool(before) and bool(after) and before["package"] != after["package"]
        if shadowed or _version(then, name) != _version(now, name):
            sides = [f"{_version(e, name)} ({part.get('file', 'file unknown')})"
                     for e, part in ((then, before), (now, after))]  # fmt: skip
            differences.append(f"package {name} was {sides[0]}, is {sides[1]}")
    modules = now.get("modules", {})
    for name, module in then.get("modules", {}).items():
        if name in modules and modules[name]["sha256"] != module["sha256"]:
            differences.append(f"module {name} has changed ({modules[name]['file']})")
    if then["retrodict"] != now["retrodict"]:
        differences.append("the code of retrodict itself has changed")
    machine = ("python", "platform", "libc", "cpu")
    differences += [f"{name} was {then[name]}, is {now[name]}" for name in machine if then[name] != now[name]]
    for name in sorted({*then["packages"], *now["packages"]} - set(_NUMERIC) - set(_OPTIONAL)):
        versions = [environment["packages"].get(name, "absent") for environment in (then, now)]
        if versions[0] != versions[1]:
            differences.append(f"package {name} was {versions[0]}, is {versions[1]}")
    return differences


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _accelerators() -> list[str]:
    """Names of the devices that a loaded torch can compute on, beside the CPU."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]


def requirements(environment: dict[str, Any]) -> str:
    """Every package of an environment with its version, as pip reads it."""
    names = sorted(name for name in environment["packages"] if name not in ("pip", "setuptools", "wheel"))
    return "".join(f"{name}=={environment['packages'][name]}\n" for name in names)


def containerfile(environment: dict[str, Any]) -> str:
    """Recipe of an image with the interpreter and the packages of an environment; ``requirements.txt`` lies beside it.

    The image of the interpreter is named by version alone: whoever builds it pins its digest.
    """
    threads = "".join(f"ENV {name}={value}\n" for name, value in environment["threads"].items())
    return (
        f"# {environment['platform']}, {environment['libc']}, {environment['cpu']}\n"
        f"FROM python:{environment['python']}-slim\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*\n"
        "COPY requirements.txt /tmp/\n"
        "RUN pip install --no-cache-dir --no-deps -r /tmp/requirements.txt\n"
        f'{threads}COPY . /project\nWORKDIR /project\nENTRYPOINT ["retrodict"]\n'
    )


def _package_hash() -> str:
    """SHA-256 over our own source files: an edited installation is another environment."""
    root = Path(retrodict.core.__file__).parents[1]
    files = sorted(path for path in root.rglob("*.py"))
    return digest("\n".join(f"{p.relative_to(root).as_posix()} {digest_file(p)}" for p in files).encode())
