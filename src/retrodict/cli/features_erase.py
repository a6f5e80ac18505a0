"""``features erase``: one subject out of tables and online state, and the truth about where it still is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._features import defined_features, defined_views, entities
from retrodict.cli._frames import read_rows, typed
from retrodict.cli._text import count, facts, table
from retrodict.cli._types import complete
from retrodict.cli.features import features
from retrodict.core.display import shorten

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict.features.definitions import Entity
    from retrodict.features.operations.erasure import Erasure
    from retrodict.features.plan import FeatureSet
    from retrodict.workspace import Workspace


@command(features, "erase", examples=["retrodict features erase --entity customer --keys asked.csv",
                                      "retrodict features erase --entity customer --keys - --yes --vacuum < asked.csv",
                                      "retrodict features erase --entity plane --key N500MQ --yes"])  # fmt: skip
@click.option("--entity", required=True, metavar="NAME", shell_complete=complete(entities), help="Whose keys they are.")
@click.option("--keys", "keys_file", metavar="FILE", help='CSV or Parquet with the key columns; "-": CSV from stdin.')
@click.option("--key", "values", metavar="VALUE", multiple=True,
              help="One subject, once per key column; stays in the shell's history.")  # fmt: skip
@click.option("--reason", default="erasure", show_default=True, help="Why, for the ledger.")
@click.option("--vacuum", "vacuumed", is_flag=True, help="Then delete older versions of the tables that nothing keeps.")
@click.option("--yes", is_flag=True, help="Do it. Without, only say what would be done.")
def erase_subjects(
    session: Session,
    entity: str,
    keys_file: str | None,
    values: Sequence[str],
    reason: str,
    vacuumed: bool,
    yes: bool,
) -> Answer:
    """Remove subjects from the newest table versions and from online state.

    Only says what would be done, unless --yes is given. Older versions of the tables, streams and logs are not
    rewritten: the answer says what remains where. The ledger keeps a keyed digest of each subject, never the key.
    """
    from retrodict.data.versions import vacuum
    from retrodict.features.operations.erasure import erase

    project = session.project.workspace
    found = _entity(project, entity)
    keys = _keys(project, found, keys_file, values)
    with session.progress(f"erase {entity}"):
        report = erase(project, found, keys, _sets(project), dry_run=not yes, reason=reason)
        if logged := _decisions(project, found, keys):
            report.remaining["decision log"] = logged
        cleared = {}
        if yes and vacuumed:
            for each in report.tables:
                result = vacuum(project, each.table, dry_run=False, older_than="0s")
                cleared[each.table] = result.to_dict()
    data = {**report.to_dict(), "vacuum": cleared}
    return Answer(data, _told(report, cleared))


def _entity(project: Workspace, name: str) -> Entity:
    from retrodict.core.errors import NotFoundError, near

    known = {view.entity.name: view.entity for view in defined_views(project)}
    if name not in known:
        raise NotFoundError(
            "a view is about this entity", where="definitions", got=name, remedy=near(name, known, what="entity")
        )
    return known[name]


def _keys(project: Workspace, entity: Entity, file: str | None, values: Sequence[str]) -> pa.Table:
    """Keys of the subjects, of the types that the tables have."""
    import pyarrow as pa

    if (file is None) == (not values):
        raise click.UsageError("Say whom: --keys FILE, or --key once per key column.")
    if file is not None:
        rows = read_rows(file)
    elif len(values) != len(entity.keys):
        raise click.UsageError(f"Entity {entity.name} has {len(entity.keys)} key columns: {', '.join(entity.keys)}.")
    else:
        rows = pa.table({key: [value] for key, value in zip(entity.keys, values, strict=True)})
    for view in defined_views(project):
        name = view.source.table.name
        if view.entity.keys == entity.keys and project.tables.history(name):
            schema = project.tables.schema(name)
            types = {key: schema.field(key).type for key in entity.keys if key in schema.names}
            return typed(rows, types, where=f"keys {file}" if file is not None else "--key")
    return rows


def _sets(project: Workspace) -> list[FeatureSet]:
    """What is defined and what is in force: everything that may have online state."""
    from retrodict.features.definitions import FeatureView
    from retrodict.features.plan import FeatureSet
    from retrodict.registry.feature_sets import readers_in_force

    own = [FeatureSet([each]) for each in defined_features(project) if isinstance(each, FeatureView)]
    return own + [reader.features for reader in readers_in_force(project)]


def _decisions(project: Workspace, entity: Entity, keys: pa.Table) -> int:
    """Logged decisions that were about one of the subjects."""
    from retrodict.core.clock import to_micros
    from retrodict.decisions.log import read_decisions

    columns = [keys.column(key).to_pylist() for key in entity.keys]
    subjects = {tuple(to_micros(v) if hasattr(v, "tzinfo") else v for v in row) for row in zip(*columns, strict=True)}
    asked = {view.request_keys for view in defined_views(project) if view.entity.keys == entity.keys}
    return sum(
        any(tuple(logged.record.entities.get(name) for name in names) in subjects for names in asked)
        for logged in read_decisions(project)
    )


def _told(report: Erasure, cleared: dict[str, Any]) -> list[Any]:
    word = "removed" if report.done else "would be removed"
    parts: list[Any] = [facts({"entity": report.entity, "subjects": report.subjects, "done": report.done}), ""]
    rows = [(e.table, e.rows, e.version, e.older, [shorten(each) for each in e.kept_for]) for e in report.tables]
    parts.append(table(("table", f"rows {word}>", "newest version>", "older versions>", "kept for"), rows))
    states = [(view, entries if report.done else "everything of them") for view, entries in report.states.items()]
    parts += ["", table(("online state of", f"entries {word}>"), states)]
    remaining = [(name, "not comparable" if rows is None else rows) for name, rows in report.remaining.items()]
    if remaining:
        parts += ["", table(("not rewritten", "rows or records of them>"), remaining)]
    if report.counted_in and any(each.rows for each in report.tables):
        names = ", ".join(report.counted_in)
        parts += ["", f"Views about others read the same rows, and their online state keeps what it counted: {names}."]
    for each in report.tables:
        deleted = len(cleared[each.table]["deleted"]) if each.table in cleared else 0
        if deleted:
            parts += ["", f"{each.table}: {count(deleted)} older versions deleted."]
        if each.older > deleted:
            still = "are kept for what the table above names" if cleared else "can be deleted with --vacuum"
            parts += [
                "",
                f"{each.table}: {count(each.older - deleted)} older versions still hold the rows; they {still}.",
            ]
    if not report.done:
        parts += ["", "Nothing was changed. Do it with --yes."]
    return parts
