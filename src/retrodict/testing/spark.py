"""A local Spark session for tests, two threads and the loopback only; or what this machine lacks for one."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from typing import Any

__all__ = ["local_session", "spark_missing"]


def spark_missing() -> str | None:
    """What a Spark session would need and this machine does not have, as a sentence; None if it has all."""
    absent = [name for name in ("pyspark", "pandas") if find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} not installed: pip install 'retrodict[spark]'"
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") is None and not (home and os.path.exists(os.path.join(home, "bin", "java"))):
        return "Spark needs Java 17 or later, and there is none here"
    return None


def local_session(zone: str = "UTC") -> Any:
    """Session of this process, started at the first call (some seconds).

    Parameters
    ----------
    zone : str, default "UTC"
        Time zone of the session.

    Returns
    -------
    pyspark.sql.SparkSession
    """
    from pyspark.sql import SparkSession

    # Workers are started by Spark: they must find this interpreter, not the first on the path.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "2g",
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": os.devnull,
    }
    builder = SparkSession.builder.master("local[2]").appName("retrodict tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.conf.set("spark.sql.session.timeZone", zone)
    return session
