"""The one way to make a command: common options, an opened project, and an answer for people and for programs.

A command is a function of a :class:`Session` and its own arguments that returns an :class:`Answer`. Everything else
(where the project is, who acts, ``--json``, errors, exit codes, broken pipes) is decided here and in ``main``, once.
Command modules import rooms inside their functions: ``retrodict --help`` must not pay for Arrow, DuckDB or LightGBM.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from retrodict.workspace import Workspace

__all__ = ["Answer", "Group", "Session", "command", "group"]

# (what is being done, steps done, steps at most): what the rooms call while they work
Progress = Callable[[str, int, int], None]

_COMMON = ("project_dir", "actor", "as_json", "verbose")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to.

    Attributes
    ----------
    data : dict
        The whole answer, unrounded: what ``--json`` prints.
    text : str, renderable, or a list of these
        The same for people, short. None prints nothing.
    ok : bool
        False ends with exit code 1: the command worked, and the verdict is no.
    """

    data: dict[str, Any]
    text: RenderableType | Sequence[Any] | None = None
    ok: bool = True


class Session:
    """What every command gets: the project (opened on first use), how to answer, and where to show progress.

    Attributes
    ----------
    as_json : bool
        Whether the answer will be JSON.
    folder : str, optional
        ``--project`` as it was given.
    actor : str, optional
        ``--actor`` as it was given.
    """

    def __init__(self, *, folder: str | None, actor: str | None, as_json: bool) -> None:
        self.folder, self.actor, self.as_json = folder, actor, as_json

    @cached_property
    def project(self) -> Workspace:
        """The project of ``--project``, or of the nearest folder above the current one."""
        from retrodict.workspace import Workspace

        return Workspace(self.folder or ".", actor=self.actor)

    def close(self) -> None:
        """Close the project if it was opened."""
        opened = self.__dict__.pop("project", None)
        if opened is not None:
            opened.close()

    def note(self, text: str) -> None:
        """Say something beside the answer, on standard error."""
        click.echo(text, err=True)

    @contextmanager
    def progress(self, what: str) -> Iterator[Progress]:
        """Show a bar on standard error while the body runs; nothing where that is not a terminal.

        Parameters
        ----------
        what : str
            Shown until the first step is reported.

        Yields
        ------
        callable
            To be called with (what, done, at most); a most of 0 or 1 is shown as a pulse.
        """
        if not sys.stderr.isatty():
            yield lambda _what, _done, _most: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True, markup=False), transient=True) as bar:
            task = bar.add_task(what, total=None)

            def tell(step: str, done: int, most: int) -> None:
                bar.update(task, description=step, completed=done, total=most if most > 1 else None)

            yield tell


class Group(click.Group):
    """A group of commands, listed in the order in which they were added: the order of the work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order they were added."""
        del ctx
        return list(self.commands)


class _Command(click.Command):
    """A command whose help ends in examples and whose common options come last."""

    def __init__(self, *args: Any, examples: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params.sort(key=lambda parameter: parameter.name in _COMMON)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, unwrapped: they are to be copied."""
        del ctx
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"  {example}\n")


def group(parent: click.Group | None, name: str, text: str) -> Group:
    """Make a group and add it to another one.

    Parameters
    ----------
    parent : click.Group, optional
    name : str
    text : str
        One sentence for the help.
    """
    made = Group(name, help=text)
    if parent is not None:
        parent.add_command(made)
    return made


def command(
    parent: click.Group, name: str, *, examples: Sequence[str], project: bool = True, log_level: int = logging.WARNING
) -> Callable[[Callable[..., Answer | None]], Callable[..., Answer | None]]:
    """Make a command of a function ``(session, **arguments) -> Answer``.

    Parameters
    ----------
    parent : click.Group
        Where it is added.
    name : str
    examples : sequence of str
        For the end of its help; whole lines.
    project : bool, default True
        Whether it works on a project: False leaves ``--project`` and ``--actor`` out.
    log_level : int
        What is logged to standard error without ``--verbose``.
    """

    def decorate(function: Callable[..., Answer | None]) -> Callable[..., Answer | None]:
        @functools.wraps(function)
        def callback(**values: Any) -> Answer | None:
            verbose = values.pop("verbose")
            _log_to_stderr(logging.INFO if verbose else log_level)
            session = Session(folder=values.pop("project_dir", None), actor=values.pop("actor", None),
                              as_json=values.pop("as_json"))  # fmt: skip
            try:
                return function(session, **values)
            finally:
                session.close()

        wrapped: Callable[..., Answer | None] = callback
        for option in _options(project=project):
            wrapped = option(wrapped)
        parent.add_command(click.command(name, cls=_Command, examples=examples)(wrapped))
        return function

    return decorate


def _options(*, project: bool) -> Sequence[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Return the common options, the last one first, as decorators are applied."""
    folder = click.Path(file_okay=False, path_type=str)
    options = [
        click.option("-v", "--verbose", is_flag=True, help="Log more to standard error; show where errors come from."),
        click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object."),
    ]
    if project:
        options += [
            click.option("--actor", metavar="NAME", help="Who acts.  [default: $RETRODICT_ACTOR, or the user]"),
            click.option("--project", "project_dir", metavar="DIR", type=folder,
                         help="Folder with retrodict.toml.  [default: this one or the nearest above]"),
        ]  # fmt: skip
    return options


def _log_to_stderr(level: int) -> None:
    # The package's own messages from the asked level on; those of libraries only when they are warnings.
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, force=True, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("retrodict").setLevel(level)
