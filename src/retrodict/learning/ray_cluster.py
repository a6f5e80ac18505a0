"""Ray: on this machine, or on the cluster that ``ray.init`` or ``RAY_ADDRESS`` names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from retrodict.core.errors import ConfigurationError

__all__ = ["open_ray"]


@contextmanager
def open_ray(cores: int, *, where: str) -> Iterator[Any]:
    """The module, connected; what was begun here is ended here.

    Parameters
    ----------
    cores : int
        Of a Ray that is begun on this machine.
    where : str
        For the message of an error.

    Raises
    ------
    ConfigurationError
        If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError("Ray must be installed to work on it", where=where, got="ray",
                                 remedy="Install retrodict[ray], or leave engine out") from error  # fmt: skip
    if ray.is_initialized():
        yield ray
        return
    here = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": cores}
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **here)
    try:
        yield ray
    finally:
        ray.shutdown()
