"""``completion``: the script that makes the Tab key complete commands, options and the project's own names."""

from __future__ import annotations

import click

from retrodict.cli._command import CommandAnswer, CommandContext, command
from retrodict.cli._root import cli


@command(cli, "completion", project=False, examples=[
    'eval "$(retrodict completion bash)"', 'eval "$(retrodict completion zsh)"', "retrodict completion fish | source",
])  # fmt: skip
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(session: CommandContext, shell: str) -> CommandAnswer:
    """Print the script for completion with the Tab key."""
    from click.shell_completion import get_completion_class

    del session
    kind = get_completion_class(shell)
    assert kind is not None  # one of the choices
    script = kind(cli, {}, "retrodict", "_RETRODICT_COMPLETE").source()
    return CommandAnswer({"shell": shell, "script": script}, script)
