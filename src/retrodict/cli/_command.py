"""The two ways to make a command, and everything they share.

:func:`expose` makes a command of a method of :class:`retrodict.Project`: arguments, options, their help and the text of
``--help`` come from the method's signature and docstring, so that nothing is said twice. :func:`command` makes one of a
function, for the few that do more than call a method. Where the project is, who acts, ``--json``, progress, errors and
exit codes are decided here and in ``main``, once. Rooms are imported inside methods: ``retrodict --help`` does not pay
for Arrow, DuckDB or LightGBM.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli import _types
from retrodict.core.errors import near
from retrodict.project import Shown, find_namespace
from retrodict.project.progress import progress_bar

if TYPE_CHECKING:
    from retrodict.project import Project

__all__ = ["CommandAnswer", "Group", "Parameter", "CommandContext", "command", "expose", "group"]

_COMMON = ("project_dir", "actor", "as_json", "verbose")


@dataclass(frozen=True, repr=False)
class CommandAnswer(Shown):
    """Answer of a command that is not a method: plain data, and what people see."""

    data: dict[str, Any]
    text: Any = None
    passed: bool = True

    @property
    def ok(self) -> bool:
        """Whether the verdict is not a no."""
        return self.passed

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return self.data

    def blocks(self) -> Sequence[Any]:
        """What there is to see."""
        return self.text if isinstance(self.text, list) else [self.text]


class CommandContext:
    """What every command gets: the project (opened on first use) and how to answer.

    Attributes
    ----------
    as_json : bool
        Whether the answer will be JSON.
    folder : str, optional
        ``--project`` as it was spec.
    actor : str, optional
        ``--actor`` as it was spec.
    """

    def __init__(self, *, folder: str | None, actor: str | None, as_json: bool) -> None:
        self.folder, self.actor, self.as_json = folder, actor, as_json

    @cached_property
    def project(self) -> Project:
        """The project of ``--project``, or of the nearest folder above the current one."""
        from retrodict.project import Project

        return Project(self.folder or ".", actor=self.actor)

    def close(self) -> None:
        """Close the project if it was opened."""
        project = self.__dict__.pop("project", None)
        if project is not None:
            project.close()

    @property
    def workspace(self) -> Any:
        """What namespaces work on: a session may stand in for a project that is opened only if it is needed."""
        return self.project.workspace

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[str, int, int], None]]:
        """Show progress of a command that is not a method."""
        with progress_bar(title) as report:
            yield report

    def note(self, text: str) -> None:
        """Say something beside the answer, on standard error."""
        click.echo(text, err=True)


class Group(click.Group):
    """A group of commands in the order of the work; an unknown name suggests the near ones."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order they were added."""
        del ctx
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; the error for an unknown one says what it may have been."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            remedy = near(args[0], self.list_commands(ctx), what="command")
            ctx.fail(f"No such command {args[0]!r}. {remedy}.")
        return super().resolve_command(ctx, args)


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
    """Make a group of commands with one sentence of help, and add it to another one."""
    commands = Group(name, help=text)
    if parent is not None:
        parent.add_command(commands)
    return commands


def command(
    parent: click.Group, name: str, *, examples: Sequence[str], project: bool = True, log_level: int = logging.WARNING
) -> Callable[[Callable[..., Shown | None]], Callable[..., Shown | None]]:
    """Make a command of a function ``(session, **arguments)`` that returns what is shown.

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

    def decorate(function: Callable[..., Shown | None]) -> Callable[..., Shown | None]:
        @functools.wraps(function)
        def callback(**values: Any) -> Shown | None:
            verbose = values.pop("verbose")
            _log_to_stderr(logging.INFO if verbose else log_level)
            session = CommandContext(folder=values.pop("project_dir", None), actor=values.pop("actor", None),
                                     as_json=values.pop("as_json"))  # fmt: skip
            try:
                with _written_aside() if values.get("parent") is not None else nullcontext():
                    return function(session, **values)
            finally:
                session.close()

        wrapped: Callable[..., Shown | None] = callback
        for option in _options(project=project):
            wrapped = option(wrapped)
        parent.add_command(click.command(name, cls=_Command, examples=examples)(wrapped))
        return function

    return decorate


# commands made of methods ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """How an argument of a method is taken from the command line, where its signature does not say it all.

    Parameters
    ----------
    metavar : str, optional
        In the help; by default by the parameter's name.
    complete : callable, optional
        Names that the Tab key offers, of a project.
    option : bool, optional
        True makes an option of a positional parameter, False an argument of a keyword.
    flag : str, optional
        Of an option; by default the parameter's name.
    type : click type, optional
    callback : callable, optional
        As click has it.
    more : mapping
        Further arguments of click's parameter.
    """

    metavar: str | None = None
    complete: Callable[[Any], Any] | None = None
    option: bool | None = None
    flag: str | None = None
    type: Any = None
    callback: Callable[..., Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


_TRAININGS = {"train", "tune", "automl", "pipelines.run", "models.score_files"}
"""Methods whose commands go after a server's work, with as many threads as ``training.threads`` says."""

_PARAMETERS = {
    "table": Parameter("TABLE", _types.tables),
    "model": Parameter("MODEL", _types.model_names),
    "policy": Parameter("POLICY", _types.policies),
    "monitor": Parameter("MONITOR", _types.monitors),
    "challenger": Parameter("MODEL@VERSION", _types.model_refs),
    "object": Parameter("REF", _types.objects),
    "limit": Parameter(type=click.IntRange(1)),
}


def expose(
    parent: click.Group,
    name: str,
    method: str,
    /,
    *,
    examples: Sequence[str],
    hidden: Sequence[str] = (),
    supply: Callable[[CommandContext], dict[str, Any]] = lambda _: {},
    log_level: int = logging.WARNING,
    lazy: bool = False,
    **parameters: Parameter,
) -> None:
    """Make a command of a method of the project; a static one needs no project.

    Positional parameters become arguments, ``*names`` takes any number of them, keywords become options. The help is
    the docstring's first part; the help of an option is its entry under Parameters.

    Parameters
    ----------
    parent : click.Group
    name : str
    method : str
        Path from the project: ``"train"``, ``"models.approve"``.
    examples : sequence of str
        For the end of its help; whole lines.
    hidden : sequence of str
        Parameters of the method that the command does not have.
    supply : callable
        Values for some of these, of the session.
    log_level : int
        What is logged to standard error without ``--verbose``.
    lazy : bool
        Whether it also works where no project is, as long as its arguments name nothing of one.
    **parameters : Parameter
        By name, where the signature does not say it all.
    """
    owner, _, last = method.rpartition(".")
    namespace = find_namespace(owner)
    static = inspect.getattr_static(namespace, last)
    function: Callable[..., Any] = getattr(static, "__func__", static)
    needs_project = not isinstance(static, staticmethod)
    text, helps = _read_docstring(inspect.getdoc(function) or "")
    signature = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", *hidden)]
    variadic = next((p.name for p in signature if p.kind is p.VAR_POSITIONAL), None)
    positional = [p.name for p in signature if p.kind is p.POSITIONAL_OR_KEYWORD]

    def run(session: CommandContext, **values: Any) -> Shown | None:
        if method in _TRAININGS:
            from retrodict.project import give_way

            file = Path(values.get("source", ""))  # of automl, which makes a project of that name
            give_way(session.folder or (file.stem if file.is_file() else "."))
        target: Any = function
        if lazy:
            target = getattr(namespace(session), last)
        elif needs_project:
            target = attrgetter(method)(session.project)
        if variadic is None:
            return target(**values, **supply(session))  # type: ignore[no-any-return]  # a method of the project
        arguments = [values.pop(argument) for argument in positional]
        return target(*arguments, *values.pop(variadic), **values)  # type: ignore[no-any-return]

    run.__doc__ = text
    decorated: Any = run
    for parameter in reversed(signature):
        spec = parameters.get(parameter.name) or _PARAMETERS.get(parameter.name) or Parameter()
        decorated = _decorate(parameter, spec, helps.get(parameter.name, ""))(decorated)
    command(parent, name, examples=examples, project=needs_project or "folder" in hidden, log_level=log_level)(
        decorated
    )


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Text before the first section of a numpydoc docstring, and the help of each parameter."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    helps: dict[str, str] = {}
    for entry in re.split(r"^(?=\S)", sections.get("Parameters", ""), flags=re.MULTILINE):
        names, _, lines = entry.partition("\n")
        sentence = re.sub(r"(?<=\S)\n\s*", " ", lines.strip()).replace("``", "")
        helps |= {word.strip(" *"): sentence for word in names.partition(" :")[0].split(",")}
    return parts[0].strip().replace("``", ""), helps


def _decorate(parameter: inspect.Parameter, spec: Parameter, text: str) -> Callable[[Any], Any]:
    annotation = str(parameter.annotation).removesuffix(" | None")
    required = parameter.default is parameter.empty
    more: dict[str, Any] = {"type": spec.type, **spec.more}
    if spec.complete is not None:
        more["shell_complete"] = _types.complete(spec.complete)
    if spec.callback is not None:
        more["callback"] = spec.callback
    elif annotation == "Time":
        more["callback"] = _types.instant
    metavar = spec.metavar or ("TIME" if annotation == "Time" else None)
    if more["type"] is None and annotation in ("str | Path", "Path"):
        more["type"] = click.Path(path_type=str)
        metavar = metavar or "FILE"
    is_option = parameter.kind is parameter.KEYWORD_ONLY if spec.option is None else spec.option
    if not is_option:
        if parameter.kind is parameter.VAR_POSITIONAL:
            more |= {"nargs": -1, "required": True, **spec.more}
        return click.argument(parameter.name, metavar=metavar or parameter.name.upper(),
                              **{"required": required, **more})  # fmt: skip
    flag = spec.flag or "--" + parameter.name.strip("_").replace("_", "-")
    if annotation == "bool":
        return click.option(flag, parameter.name, is_flag=True, help=text, **spec.more)
    if more["type"] is None:
        more["type"] = {"int": click.IntRange(0), "float": float}.get(annotation, _choice(annotation))
    settings: dict[str, Any] = {"required": required, **more}
    if not required and parameter.default is not None:  # a default of None would stand in for what is required
        settings |= {"default": parameter.default, "show_default": parameter.default != ""}
    return click.option(flag, parameter.name, metavar=metavar or _METAVARS.get(parameter.name), help=text, **settings)


_METAVARS = {"reason": "TEXT", "force": "REASON", "train": "FIRST/AFTER", "validate": "LENGTH", "test": "LENGTH"}


def _choice(annotation: str) -> Any:
    """Choices of ``Literal["a", "b"]``; plain text for every other annotation."""
    literal = re.fullmatch(r"Literal\[(.*)\]", annotation)
    return click.Choice(re.findall(r"[\"']([^\"']+)[\"']", literal.group(1))) if literal else str


def _options(*, project: bool) -> Sequence[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Return the common options, the last one first, as decorators are applied."""
    folder = _types.FolderPath(str)
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


class _StandardError(logging.Handler):
    """Writes to what standard error is then: whoever calls a command within a process may replace and close it."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")
        sys.stderr.flush()


def _written_aside() -> AbstractContextManager[None]:
    """Of a process beside a server, whose standard error is the server's, and may be a pipe that nobody reads."""
    from retrodict.core.log_lines import written_aside  # whose imports no other command needs

    return written_aside()


def _log_to_stderr(level: int) -> None:
    # The package's own messages from the asked level on; those of libraries only when they are warnings.
    logging.basicConfig(
        handlers=[_StandardError()],
        level=logging.WARNING, force=True, format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )  # fmt: skip
    logging.getLogger("retrodict").setLevel(level)
    if level <= logging.INFO or "RETRODICT_LOG" in os.environ:
        from retrodict.core.log_lines import LineFormatter  # whose imports most commands do not need

        logging.getLogger().handlers[0].setFormatter(LineFormatter())
