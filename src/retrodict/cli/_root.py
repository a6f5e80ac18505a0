"""The root group: which commands there are, in the order of the work, and the module each one lives in.

A module is imported when one of its commands is asked for. The root stands in a file of its own, so that the modules
can add their commands to it without importing the entry point.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

import click

from retrodict.cli._command import Group

__all__ = ["SECTIONS", "cli", "every_command"]

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Project": {"init": "project", "plan": "project"},
    "Data and features": {"ingest": "data", "data": "data", "features": "features"},
    "Learning": {"train": "learning", "tune": "learning", "automl": "learning", "score": "learning", "runs": "learning",
                 "models": "learning"},
    "Running": {"pipelines": "pipelines"},
    "Deciding": {"deploy": "policies", "promote": "policies", "rollback": "policies", "drill": "policies",
                 "incident": "policies",
                 "deployments": "policies", "policies": "policies", "serve": "policies", "api-keys": "policies",
                 "decide": "policies", "decisions": "policies", "rollout": "rollouts", "halt": "rollouts",
                 "release": "rollouts",
                 "shadow": "challengers", "challenger": "challengers", "experiment": "experiments"},
    "Watching": {"outcomes": "monitoring", "monitor": "monitoring", "compare": "monitoring"},
    "Looking back": {"lineage": "ledger", "replay": "ledger", "audit": "ledger"},
    "More": {"demo": "demo", "completion": "completion"},
}  # fmt: skip
"""Titles of the help's sections, the commands under each, and the module of ``retrodict.cli`` each is defined in."""


class _Root(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for modules in SECTIONS.values():
            if cmd_name in modules:
                import_module(f"retrodict.cli.{modules[cmd_name]}")
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, names in SECTIONS.items():
            commands = [(name.ljust(width), self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name, c.get_short_help_str(90)) for name, c in commands if c is not None])


def _print_version(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from retrodict import __version__

        click.echo(f"retrodict {__version__}")
        context.exit()


cli = _Root(
    "retrodict",
    context_settings={"max_content_width": 110},
    help="Predict forward, retrodict back: decisions made by models, from raw data to audit.",
)
cli.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the version.",
    )
)


def every_command() -> dict[str, click.Command]:
    """Every command that is not a group, by its full name, in the order of the help."""
    return dict(_walk(cli, "retrodict"))


def _walk(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _walk(command, f"{prefix} {name}")
        elif command is not None:
            yield f"{prefix} {name}", command
