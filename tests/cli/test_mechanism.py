"""The one mechanism behind every command: options, answers, errors, exit codes, pipes, interrupts."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from retrodict.cli._command import CommandAnswer, CommandContext, command
from retrodict.cli._root import SECTIONS, cli, every_command

Run = Callable[..., Any]


COMMANDS = every_command()


@pytest.mark.parametrize("path", COMMANDS)
def test_help_has_a_sentence_and_examples(path: str, run: Run) -> None:
    """Each command's help begins with one short sentence and ends in examples of that command."""
    shown = run(*path.split()[1:], "--help")
    assert shown.code == 0
    first = (COMMANDS[path].help or "").splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 90
    examples = shown.out.partition("Examples:\n")[2]
    assert path in examples


@pytest.mark.parametrize("path", COMMANDS)
def test_common_options(path: str) -> None:
    """Each command answers in JSON, says more when asked to, and where it works on a project takes folder and actor."""
    options = {name for parameter in COMMANDS[path].params for name in parameter.opts}
    assert {"--json", "--verbose"} <= options
    if path.rsplit(maxsplit=1)[-1] not in ("init", "flights", "completion", "import-checks", "import-feast", "check"):
        assert {"--project", "--actor"} <= options


def test_sections_name_every_command() -> None:
    """Every command of the root is in exactly one section of its help."""
    named = [name for homes in SECTIONS.values() for name in homes]
    assert sorted(named) == sorted(set(named))
    assert {path.split()[1] for path in COMMANDS} == set(named)


def test_an_error_is_one_json_object(run: Run, folder: Path) -> None:
    """A refused command prints its rule and remedy as one JSON object, and exits by the kind of error."""
    shown = run("train", "default_rsik", "--project", folder, "--json")
    assert shown.code == 2
    assert shown.json["error"]["kind"] == "NotFoundError"
    assert shown.json["error"]["remedy"] == "Did you mean the model 'default_risk'"
    message = "definitions: the project must define this model; got 'default_rsik'."
    assert shown.json["error"]["message"].startswith(message)


def test_an_error_for_people_is_on_standard_error(run: Run, folder: Path) -> None:
    """Without --json nothing is on standard output, and the message is on standard error."""
    shown = run("train", "default_rsik", "--project", folder)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.startswith("error: definitions: the project must define this model")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["train"],
        ["plan", "--nonsense"],
        ["runs"],
        ["decide", "grant", "--entity", "no"],
        ["data", "show", "x", "--limit", "0"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_2(arguments: list[str], run: Run) -> None:
    """Wrong use is exit code 2, for people and as one JSON object of the same form as every error."""
    assert run(*arguments).code == 2
    shown = run(*arguments, "--json")
    assert shown.code == 2
    assert shown.json["error"].keys() == {"kind", "message", "where", "rule", "remedy"}
    assert shown.json["error"]["kind"] == "UsageError"


def test_a_time_needs_its_zone(run: Run, folder: Path) -> None:
    """A time without a zone is bad input, and the message names the option."""
    shown = run("deployments", "--at", "2020-01-01T00:00", "--project", folder, "--json")
    assert (shown.code, shown.json["error"]["where"]) == (2, "--at")


def test_no_project_says_how_to_make_one(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a project the error says what makes one."""
    monkeypatch.chdir(tmp_path)
    shown = run("plan", "--json")
    assert (shown.code, shown.json["error"]["kind"]) == (2, "ConfigurationError")
    assert "retrodict init" in shown.json["error"]["remedy"]


def test_the_project_is_found_from_below(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --project the nearest folder above with a retrodict.toml is the project."""
    below = folder / "notes" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert run("plan", "--json").json["project"] == "bank"


def test_the_actor_is_recorded(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--actor says who acts, over RETRODICT_ACTOR."""
    monkeypatch.setenv("RETRODICT_ACTOR", "env")
    for name, more in (("loans", ["--actor", "flag"]), ("people", [])):
        (folder / "people.csv").write_text("person\nann\n")
        assert run("ingest", name, folder / f"{name}.csv", "--project", folder, *more).code == 0
    entries = run("audit", "log", "--project", folder, "--json").json["entries"]
    assert [e["actor"] for e in entries if e["action"] == "dataset.version"] == ["flag", "env"]


@pytest.fixture
def broken() -> Iterator[dict[str, BaseException]]:
    """A command that raises what it is told to, made by the mechanism itself."""
    told: dict[str, BaseException] = {}

    @command(cli, "broken", project=False, examples=["retrodict broken"])
    def fail(session: CommandContext) -> CommandAnswer:
        """Fail."""
        raise told["error"]

    yield told
    del cli.commands["broken"]


def test_an_unknown_exception_is_one_line(run: Run, broken: dict[str, BaseException]) -> None:
    """What nobody foresaw is one line and exit code 1; the trace is there with -v only."""
    broken["error"] = KeyError("lost")
    quiet, loud = run("broken"), run("broken", "-v")
    assert quiet.code == loud.code == 1
    assert quiet.err == "error: internal error (KeyError: 'lost'); -v shows where\n"
    assert "Traceback" in loud.err
    assert run("broken", "--json").json["error"]["kind"] == "InternalError"


def test_ctrl_c_exits_130(run: Run, broken: dict[str, BaseException]) -> None:
    """An interrupt is exit code 130 and, for a program, still one JSON object."""
    broken["error"] = KeyboardInterrupt()
    assert run("broken").code == 130
    shown = run("broken", "--json")
    assert (shown.code, shown.json["error"]["kind"]) == (130, "Interrupted")


def test_a_real_interrupt_of_a_real_process() -> None:
    """SIGINT ends a running command with 130 and no trace."""
    script = """
import signal, sys
from retrodict.cli import _command, _root, main

@_command.command(_root.cli, "wait", project=False, examples=["retrodict wait"])
def wait(session):
    print("waiting", flush=True)
    signal.pause()

sys.exit(main.run(["wait"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_closed_pipe_is_quiet(folder: Path, command_line: Callable[..., list[str]]) -> None:
    """A reader that has seen enough ends the output without a word, and the job's own exit code stays."""
    process = subprocess.Popen(
        [*command_line("audit", "log", "--project", folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert err == b""


def test_version(run: Run) -> None:
    """--version prints the version and nothing else."""
    from retrodict import __version__

    assert run("--version").out == f"retrodict {__version__}\n"


def test_the_tab_key_offers_names_of_the_project(folder: Path, spawn: Run) -> None:
    """The shell's completion knows models, policies and tables of the project at hand."""
    for words, offered in (
        ("train d", "default_risk"),
        ("deploy ", "grant"),
        ("deploy d", "default_risk"),
        ("ingest l", "loans"),
        ("monitor ", "watch"),
    ):
        line = f"retrodict {words}"
        environment = {
            "_RETRODICT_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        shown = spawn(cwd=folder, **environment)
        assert f"plain,{offered}" in shown.out.split(), words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, run: Run) -> None:
    """The script of each shell calls back into retrodict."""
    shown = run("completion", shell)
    assert shown.code == 0
    assert "_RETRODICT_COMPLETE" in shown.out


@pytest.mark.parametrize("path", COMMANDS)
def test_what_is_required_must_be_given(path: str, run: Run) -> None:
    """A command without one of its required options is wrong use, not an internal error."""
    required = [p for p in COMMANDS[path].params if p.required and isinstance(p, click.Option)]
    arguments = ["x" for p in COMMANDS[path].params if p.required and isinstance(p, click.Argument)]
    if required:
        shown = run(*path.split()[1:], *arguments, "--json")
        assert (shown.code, shown.json["error"]["kind"]) == (2, "UsageError"), shown.out
