"""docs/cli.md holds what exists: every command with its sentence, every option, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from retrodict.cli._root import every_command

COMMANDS = every_command()
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
COMMON = {"--project", "--actor", "--json", "--verbose"}


def sections() -> dict[str, str]:
    parts = re.split(
        r"^### `(retrodict [a-z -]+?)(?: [^a-z`][^`]*)?`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_page_is_what_its_script_writes() -> None:
    """``python docs/make_cli.py`` changes nothing: the page is made of the commands."""
    import runpy

    script = runpy.run_path(str(PAGE.parent / "make_cli.py"))
    text = PAGE.read_text(encoding="utf-8")
    assert script["page"](text) == text, "run: python docs/make_cli.py"


def test_the_page_has_every_command_and_no_other() -> None:
    """A new command is documented, a removed one is not."""
    assert sorted(sections()) == sorted(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_the_page_has_the_sentence_and_every_option(path: str) -> None:
    """Each section opens with the sentence of --help and lists exactly the command's own options."""
    text = sections()[path]
    made = COMMANDS[path]
    assert (made.help or "").splitlines()[0] in text
    own = {name for p in made.params if isinstance(p, click.Option) for name in p.opts if name.startswith("--")}
    if path != "retrodict demo flights":
        own -= COMMON
    listed = set(re.findall(r"^\| `(--[a-z-]+)", text, flags=re.MULTILINE))
    assert listed == own - ({"--json", "--verbose"})


def test_the_page_has_the_common_options_and_exit_codes() -> None:
    """What holds for all commands is said once."""
    text = PAGE.read_text(encoding="utf-8")
    for option in COMMON:
        assert f"| `{option}" in text
    for code in ("0", "1", "2", "130"):
        assert f"| {code} |" in text
