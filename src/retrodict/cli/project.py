"""``init`` and ``plan``: begin a project, and see what is to be done next."""

from __future__ import annotations

from pathlib import Path

from retrodict.cli import _types
from retrodict.cli._command import Parameter, expose
from retrodict.cli._root import cli

expose(cli, "init", "write_template", folder=Parameter("DIR", type=_types.FolderPath(Path)),
       examples=["retrodict init flights && cd flights && retrodict plan"])  # fmt: skip
expose(cli, "plan", "plan", examples=["retrodict plan", "retrodict plan --json"])
