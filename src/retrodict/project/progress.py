"""Progress of long work: a bar on standard error where somebody looks at a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Progress", "progress_bar"]

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all); a total of 0 or 1 is shown as a pulse."""


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a bar while the body runs; nothing where standard error is not a terminal.

    Parameters
    ----------
    title : str
        Shown until the first step is reported.

    Yields
    ------
    callable
        To be called with (what, done, total).
    """
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True, markup=False), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def report(step: str, done: int, total: int) -> None:
            bar.update(task, description=step, completed=done, total=total if total > 1 else None)

        yield report
