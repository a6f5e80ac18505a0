"""Writes cli.md from the commands: ``python docs/make_cli.py``. What stands before its first section is kept."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from retrodict.cli._root import SECTIONS, every_command

PAGE = Path(__file__).parent / "cli.md"
NOTES = {
    "features offline": """\
A kept frame is refused if anything else changed: a view, a column, the beginning of the spine, or rows that came into a
table and could have been seen by rows that are there; `--anew` makes a new version of all of it then. Exit code 2 with
the line to type where Spark or Java is not installed.""",
    "features push": """\
An index in `state/pushed` knows the records of the stream by 16 bytes each. A push reads what was appended since the
last push, whoever appended it, and never the whole stream again; so a push that was killed is repeated and adds only
the rest. The index may be deleted; the next push makes it anew from the whole stream.""",
    "features stream": """\
Start the server with `--no-consume` where several processes feed the state (see [projects](projects.md)). A process
that is killed is started again; one that ends with an error ends the command, and Ctrl-C ends all of them.""",
}
"""What is worth a paragraph here and too long for ``--help``."""
COMMON = ("project_dir", "actor", "as_json", "verbose")


def page(text: str) -> str:
    """The page for the commands there are, with the introduction of an earlier one."""
    introduction = text.partition("\n## ")[0]
    return "\n".join([introduction, *_sections()])


def _sections() -> Iterator[str]:
    commands = every_command()
    for title, names in SECTIONS.items():
        yield f"## {title}\n"
        for path, command in commands.items():
            if path.split()[1] in names:
                yield from _command(path, command)


def _command(path: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=path, max_content_width=140)
    arguments = [_argument(p) for p in command.params if isinstance(p, click.Argument)]
    yield f"### `{' '.join([path, *arguments])}`\n"
    for paragraph in re.split(r"\n\s*\n", (command.help or "").strip()):
        yield textwrap.fill(" ".join(paragraph.split()), 120, break_long_words=False, break_on_hyphens=False) + "\n"
    if note := NOTES.get(path.partition(" ")[2]):
        yield note + "\n"
    options = [p for p in command.params if isinstance(p, click.Option) and p.name not in COMMON]
    if options:
        yield "| option | meaning |\n|---|---|"
        yield from (f"| `{name}` | {meaning} |" for name, meaning in (_option(p, context) for p in options))
        yield ""
    yield "\n".join(["```console", *(f"$ {example}" for example in getattr(command, "examples", ())), "```\n"])


def _argument(argument: click.Argument) -> str:
    name = (argument.metavar or (argument.name or "").upper()).removesuffix("...")
    if not argument.required and not re.fullmatch(r"\[[^\[\]]*\]", name):
        name = f"[{name}]"
    return f"{name}…" if argument.nargs == -1 else name


def _option(option: click.Option, context: click.Context) -> tuple[str, str]:
    name, meaning = option.get_help_record(context) or ("", "")
    name = name.rpartition(", ")[2] if name.startswith("-") and not name.startswith("--") else name
    return name.replace("|", "/"), " ".join(meaning.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
