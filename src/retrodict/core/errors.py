"""Every error Retrodict raises on purpose, cut by what the caller can do about it.

::

    RetrodictError
    ├── InputError (ValueError)            fix the data, the request or the argument        exit 2
    │   └── NotFoundError (LookupError)    fix the name: nothing is stored under it          exit 2
    ├── DefinitionError (ValueError)       fix the definitions module                        exit 2
    ├── ConfigurationError (ValueError)    fix retrodict.toml or the environment             exit 2
    │   └── MissingExtraError (ImportError)  install the extra that the message names        exit 2
    ├── RefusedError                       a check, gate or approval said no                 exit 1
    ├── RetryableError                     nothing is wrong with the call: try again later   exit 1
    │   ├── BusyError (BlockingIOError)    another holds it; the message says who, if known   exit 1
    │   ├── FencedError                    another writer has it now: open another          exit 1
    │   ├── AttemptsError                  it failed every time; the last error is with it   exit 1
    │   ├── OpenBreakerError               it failed so often that it is not called now      exit 1
    │   └── ServerAwayError                a server cannot be reached, or does not answer    exit 1
    ├── IntegrityError                     stored bytes are not what was written             exit 1
    └── InternalError (RuntimeError)       a promise of ours is broken: please report        exit 1

One message builder makes them alike: *where*, the *rule*, the value *got*, the *remedy*. Values of data subjects and
secrets never go into ``got``; pass counts, column names and types instead.
"""

from __future__ import annotations

import difflib
import signal
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

__all__ = [
    "AttemptsError",
    "BusyError",
    "ConfigurationError",
    "DefinitionError",
    "FencedError",
    "InputError",
    "IntegrityError",
    "InternalError",
    "MissingExtraError",
    "NotFoundError",
    "OpenBreakerError",
    "RefusedError",
    "RetrodictError",
    "RetryableError",
    "ServerAwayError",
    "check_known",
    "check_reason",
    "check_text",
    "foreign",
    "is_interrupt",
    "near",
    "tried",
]

_UNSET = object()


class RetrodictError(Exception):
    """Base of the tree; never raised itself.

    Parameters
    ----------
    rule : str
        What must hold, as a sentence without its full stop.
    where : str, optional
        Object, step, column, file and line, row count: what the reader must open.
    got : object, optional
        The offending value, shown by ``repr``. Never personal data, never a secret.
    remedy : str, optional
        What to do now, as an imperative sentence without its full stop.

    Examples
    --------
    >>> str(InputError("a duration is a number and a unit", where="window", got="2x", remedy="Write it like '2h'"))
    "window: a duration is a number and a unit; got '2x'. Write it like '2h'."
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, rule: str, *, where: str | None = None, got: object = _UNSET, remedy: str | None = None) -> None:
        self.rule, self.where, self.remedy = rule, where, remedy
        self.got = None if got is _UNSET else got
        text = f"{where}: {rule}" if where else rule
        if got is not _UNSET:
            text += f"; got {got!r}"
        text += "."
        if remedy:
            text += f" {remedy}."
        super().__init__(text)

    def __str__(self) -> str:
        # KeyError and friends would print the repr of the message.
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries (workers); rebuild from the finished text.
        return (_rebuild, (type(self), str(self), self.rule, self.where, self.remedy))


def _rebuild(kind: type[RetrodictError], text: str, rule: str, where: str | None, remedy: str | None) -> RetrodictError:
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    error.rule, error.where, error.remedy, error.got = rule, where, remedy, None
    return error


class InputError(RetrodictError, ValueError):
    """The data, the request or the argument breaks a rule."""

    exit_code = 2


class NotFoundError(InputError, LookupError):
    """Nothing is stored under this name, version or id."""


class DefinitionError(RetrodictError, ValueError):
    """A definition contradicts itself or names what does not exist."""

    exit_code = 2


class ConfigurationError(RetrodictError, ValueError):
    """``retrodict.toml`` or the environment is wrong."""

    exit_code = 2


class MissingExtraError(ConfigurationError, ImportError):
    """An optional library is needed; the message prints the install line."""

    def __init__(self, library: str, extra: str, *, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the library {library!r}, which is not installed",
            remedy=f"Install it with: pip install 'retrodict[{extra}]'",
        )


class RefusedError(RetrodictError):
    """A check, a gate or an approval said no; what was asked for was not done."""


class RetryableError(RetrodictError):
    """Nothing is wrong with the call; the same call may succeed later."""


class BusyError(RetryableError, BlockingIOError):
    """Another process or writer holds what this call needs; the message names it where the store can tell."""


class AttemptsError(RetryableError):
    """A call failed as often as it was to be tried, or nobody waits for another try.

    Attributes
    ----------
    last : BaseException, optional
        What it failed with in the end; the cause of this one as well. None where this came from another process.
    attempts : int
        How often it was made.
    """

    last: BaseException | None = None
    attempts: int = 0


class OpenBreakerError(RetryableError):
    """What a circuit breaker guards failed so often that it is not called until some time has passed."""


class ServerAwayError(RetryableError):
    """A server cannot be reached, or does not answer in time; the message says what became of a write."""


class FencedError(RetryableError):
    """Another writer has what this one held; what was acknowledged stays, and a new one takes the call."""


class IntegrityError(RetrodictError):
    """Stored bytes are not what was written, or a record is missing."""


class InternalError(RetrodictError, RuntimeError):
    """A promise of this package is broken; please report it with the text."""


def check_text(value: object, *, where: str) -> str:
    """Return a value that is text; InputError names the type of any other.

    Examples
    --------
    >>> check_text(5, where="reason")
    Traceback (most recent call last):
    retrodict.core.errors.InputError: reason: the value must be text; got 'int'. Write it in quotes.
    """
    if not isinstance(value, str):
        raise InputError("the value must be text", where=where, got=type(value).__name__, remedy="Write it in quotes")
    return value


_FILLERS = "\u115f\u1160\u3164\uffa0"  # letters that show as nothing


def check_reason(value: object, rule: str, *, where: str) -> str:
    """Return a reason without the blanks around it; one that is empty raises the rule.

    Examples
    --------
    >>> check_reason(" ", "an approval must have a reason", where="model:late@3")
    Traceback (most recent call last):
    retrodict.core.errors.InputError: model:late@3: an approval must have a reason; got ' '. Say it with --reason.
    """
    text = check_text(value, where="reason").strip()
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError("text must be of whole characters", where="reason", got="bytes that are no UTF-8",
                         remedy="Write it again")  # fmt: skip
    if not any(letter.isalnum() and letter not in _FILLERS for letter in text):  # nor what nobody can see
        raise InputError(rule, where=where, got=value, remedy="Say it with --reason")
    return text


def check_known(
    name: str,
    names: Collection[str],
    rule: str,
    *,
    where: str,
    what: str = "name",
    error: type[RetrodictError] = NotFoundError,
) -> str:
    """Return a name that is among the known ones; any other raises the rule with the near names as its remedy.

    Examples
    --------
    >>> check_known("lable", ["label", "model"], "a kind must exist", where="tree", what="kind")
    Traceback (most recent call last):
    retrodict.core.errors.NotFoundError: tree: a kind must exist; got 'lable'. Did you mean the kind 'label'.
    """
    if name not in names:
        raise error(rule, where=where, got=name, remedy=near(name, names, what=what))
    return name


def is_interrupt(error: BaseException) -> bool:
    """Whether an error of somebody's code is the Ctrl-C of whoever runs it: in the main thread, and of no server."""
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


@contextmanager
def foreign(rule: str, where: str) -> Iterator[None]:
    """Raise whatever somebody's code ends with as a DefinitionError; not a Ctrl-C, nor what a file or we have raised.

    Such code raises SystemExit or CancelledError, too, which would end whoever called it: a server, say.
    """
    try:
        yield
    except (RetrodictError, OSError):
        raise
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise DefinitionError(rule, where=where, got=type(error).__name__, remedy="Correct that code") from error


@contextmanager
def tried() -> Iterator[None]:
    """Let somebody's code fail in whatever way, for nobody: what is wrong with it is said when it is needed."""
    try:
        yield
    except BaseException as error:
        if is_interrupt(error):
            raise


def near(name: str, names: Iterable[str], *, what: str = "name") -> str:
    """Remedy for an unknown name: the nearest known ones, or all of them if few.

    Parameters
    ----------
    name : str
        The unknown name.
    names : iterable of str
        The names that exist.
    what : str, default "name"
        The noun for the sentence.

    Returns
    -------
    str
        A sentence without its full stop.

    Examples
    --------
    >>> near("lable", ["label", "model"], what="kind")
    "Did you mean the kind 'label'"
    """
    choices = sorted(set(names))
    if not choices:
        return f"There is no {what} yet"
    close = difflib.get_close_matches(str(name), choices, n=3, cutoff=0.6)
    if close:
        return f"Did you mean the {what} " + " or ".join(repr(c) for c in close)
    listing = ", ".join(repr(k) for k in choices[:12]) + (", …" if len(choices) > 12 else "")
    return f"Known: {listing}"
