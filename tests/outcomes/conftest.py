"""The project of the monitoring tests: what became of its decisions is known as of any time."""

from __future__ import annotations

from tests.monitoring.conftest import kit, make_project, project, world

__all__ = ["kit", "make_project", "project", "world"]
