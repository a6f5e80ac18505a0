"""What a run was computed with: interpreter, libraries, machine, threads. Part of its identity, kept as one object.

What is installed is not what runs: a folder earlier on the path hides a package. So the path is searched, as an import
would, for the libraries that numbers depend on and for whatever is hidden. Importing them to ask took two seconds: more
than all else that a training does which finds that nothing has changed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
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


def describe_environment(*, project: Path | None = None, extras: Iterable[str] | None = None) -> dict[str, Any]:
    """Plain description, equal on two machines exactly where results may be expected to be equal bit for bit.

    Parameters
    ----------
    project : Path, optional
        Folder whose modules are left out: a run keeps them as its code.
    extras : iterable of str, optional
        Extras whose libraries the work will use: they are described where they are installed, and no others.
        None: those whose libraries are loaded.

    Returns
    -------
    dict
        ``packages``: versions of what is installed. ``imported``: of each library that numbers depend on the file that
        is imported, its own version, and the package it belongs to (None: another one lies earlier on the path).
        ``modules``: file and SHA-256 of each module of no installed package that is loaded, or hides an installed one.
    """
    optional = dict(_EXTRAS[name] for name in (_EXTRAS if extras is None else extras) if name in _EXTRAS)
    if extras is None:
        optional = {package: module for package, module in optional.items() if module in sys.modules}
    packages: dict[str, str] = {}
    folders: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        described = distribution.metadata  # which is parsed anew each time it is asked for
        if name := described["Name"]:
            # In the order of the path: the first is the one that is imported.
            packages.setdefault(name.lower(), described["Version"])
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
            name: _imported(module, file, name, folders.get(name), packages.get(name))
            for name, module in {**_NUMERIC, **optional}.items()
            if (file := _file_of(module)) is not None
        },
        "modules": dict(sorted(_loose_modules(project))),
        "retrodict": _package_hash(),
        "accelerators": _accelerators() if "torch" in optional else [],
    }


def environment_bytes(*, project: Path | None = None, extras: Iterable[str] | None = None) -> bytes:
    """Canonical JSON of :func:`describe_environment`."""
    return canonical_json(describe_environment(project=project, extras=extras))


def _file_of(module: str) -> Path | None:
    """File of a module that is loaded, or that an import would load."""
    loaded = sys.modules.get(module)
    spec = None if loaded is not None else importlib.util.find_spec(module)
    file = getattr(loaded, "__file__", None) if spec is None else spec.origin
    return None if file is None else Path(file).resolve()


def _imported(module: str, file: Path, package: str, folder: str | None, version: str | None) -> dict[str, Any]:
    owned = folder is not None and file.is_relative_to(Path(folder).resolve())
    if module in sys.modules or not owned:  # a file of no package says itself which version it is
        version = getattr(importlib.import_module(module), "__version__", None)
    return {"file": str(file), "version": version, "package": package if owned else None}


def _loose_modules(project: Path | None) -> Iterator[tuple[str, dict[str, str]]]:
    """Modules of no installed package, loaded or hiding an installed one: a version says nothing of them, text does."""
    installed: list[str] = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed += [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
    left_out = {Path(folder).resolve() for folder in installed} | {Path(retrodict.core.__file__).resolve().parents[1]}
    # Of the thousands of modules nearly all are installed: their paths need not be resolved to see it.
    prefixes = tuple(f"{folder}{os.sep}" for folder in (*installed, *left_out))
    if project is not None:
        left_out.add(project.resolve())
    loaded = ((name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items()))
    for name, text in (*loaded, *_hiding(installed)):
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


def _hiding(installed: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and file of every module of a folder that lies before the installed one of the same name on the path."""
    hidden = {name.partition(".")[0] for folder in installed if os.path.isdir(folder) for name in os.listdir(folder)}
    last = max((at for at, folder in enumerate(sys.path) if folder in installed), default=0)
    for module in pkgutil.iter_modules([folder for folder in sys.path[:last] if folder not in installed]):
        if module.name in hidden:
            place = Path(module.module_finder.path, module.name)  # type: ignore[union-attr]  # of folders it is a FileFinder
            if not module.ispkg:
                yield module.name, f"{place}.py"
            for file in place.rglob("*.py") if module.ispkg else ():
                parts = file.relative_to(place.parent).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), str(file)


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
    """Names of the devices that torch can compute on, beside the CPU; it has to be loaded to tell."""
    if importlib.util.find_spec("torch") is None:
        return []
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
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
