"""The entry point: runs a command, prints its answer or its error, and turns both into an exit code.

Exit codes: 0 done; 1 the job failed or a gate, an approval, an audit or a replay said no; 2 wrong use or bad input;
130 stopped by Ctrl-C. With ``--json`` exactly one JSON object is printed in every one of these cases.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from retrodict.cli._root import cli
from retrodict.core.errors import ConfigurationError, RetrodictError
from retrodict.project import Shown, text_of, to_json

__all__ = ["main", "run"]

_INTERRUPTED = 130
_MISPLACED = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENOENT, errno.EINVAL, errno.ENXIO)
"""What the operating system says of a folder in the place of a file, a file in that of a folder, a link to nowhere."""


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str
        Without the name of the program.
    """
    as_json = _asked_for(arguments, "--json")
    try:
        answer = cli.main(list(arguments), prog_name="retrodict", standalone_mode=False)
        return _answered(answer, as_json=as_json)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        # click puts an Abort in the place of the interrupt, which may say how to go on.
        words = ["stopped by Ctrl-C", *map(str, getattr(error.__cause__ or error.__context__ or error, "args", ()))]
        return _failed("Interrupted", "; ".join(words), _INTERRUPTED, as_json=as_json)
    except click.ClickException as error:
        # Older versions of click have no such class: a group without a command prints its help there by itself.
        bare = type(error).__name__ == "NoArgsIsHelpError"
        return _failed("UsageError", error.format_message() if bare else _usage(error), 2, as_json=as_json, bare=bare)
    except Exception as error:  # noqa: BLE001  # the last resort: one line, and the trace for those who ask
        if _asked_for(arguments, "-v", "--verbose"):
            traceback.print_exc()
        if (ours := error if isinstance(error, RetrodictError) else _read_only(error)) is not None:
            facts: dict[str, Any] = {"where": ours.where, "rule": ours.rule, "remedy": ours.remedy}
            return _failed(type(ours).__name__, str(ours), ours.exit_code, as_json=as_json, **facts)
        text = f"internal error ({type(error).__name__}: {error}); -v shows where"
        return _failed("InternalError", " ".join(text.split()), 1, as_json=as_json)


def _read_only(error: Exception) -> RetrodictError | None:
    """Return our error where a command may not read or write, or another thing lies in a place."""
    if isinstance(error, OSError) and error.filename and error.errno in _MISPLACED:
        return ConfigurationError(
            "a file or folder of the project must be of its kind, and there",
            where=str(error.filename),
            got=error.strerror,
            remedy="Move what lies there out of the way, or restore it from a backup; see 'retrodict audit verify'",
        )
    if not isinstance(error, OSError) or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
        return None
    return ConfigurationError(
        "what a command reads or writes must lie where it may",
        where=str(error.filename or "the project's folder"),
        got=error.strerror,
        remedy="Where the project's folder is read-only, make it writable or work in a copy",
    )


def _asked_for(arguments: Sequence[str], *flags: str) -> bool:
    # Read from the raw arguments: the parser itself may be what fails.
    options = list(arguments)
    return any(flag in options[: options.index("--") if "--" in options else None] for flag in flags)


def _usage(error: click.ClickException) -> str:
    text = error.format_message()
    context = getattr(error, "ctx", None)
    return text if context is None else f"{text} See '{context.command_path} --help'."


def _answered(answer: Any, *, as_json: bool) -> int:
    if not isinstance(answer, Shown):  # help and version return click's exit code; a server has answered already
        return answer if isinstance(answer, int) else 0
    if as_json:
        _print(to_json(answer))
    else:
        # In a pipe the width is that of the environment's COLUMNS, or 80.
        _print(text_of(answer.blocks(), width=shutil.get_terminal_size((80, 24)).columns))
    return 0 if answer.ok else 1


def _failed(kind: str, message: str, code: int, *, as_json: bool, bare: bool = False, **facts: str | None) -> int:
    if as_json:
        parts = {"where": None, "rule": None, "remedy": None, **facts}
        _print(to_json({"error": {"kind": kind, "message": message, **parts}}))
    else:
        click.echo(message if bare else f"error: {message}", err=True)
    return code


def _print(text: str) -> None:
    try:
        if text:
            print(text)  # noqa: T201  # printing is what this function is for
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough. Python would flush again at exit and complain: let it flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
