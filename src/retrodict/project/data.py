"""``project.data``: batches become versions of tables, or say why not; versions are read, compared and put back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retrodict.core.display import Block, Grid, Listing, count, short_hash, when
from retrodict.core.errors import ConfigurationError, InputError
from retrodict.core.files import write_text
from retrodict.core.lazy import lazy_modules
from retrodict.data.definitions import Table
from retrodict.project.arguments import Time, instant
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict.data import ingest, preview, profiling, quarantine, readers, unpublished, versions
    from retrodict.data.ingest import IngestReport
    from retrodict.data.interchange.file import ImportedTable
    from retrodict.data.preview import IngestPreview
    from retrodict.data.profiling import Health, Profile
    from retrodict.data.profiling.suggest import SuggestedTable
    from retrodict.data.quarantine import QuarantinedBatch
    from retrodict.data.unpublished import Unpublished
    from retrodict.data.versions import CompactReport, Diff, RollbackReport, Tag, VacuumResult, history, reads
    from retrodict.data.versions.history import VersionSummary
    from retrodict.data.versions.reads import TableHead
else:
    ingest, preview, profiling, quarantine, readers, unpublished, versions = lazy_modules(
        "retrodict.data", "ingest", "preview", "profiling", "quarantine", "readers", "unpublished", "versions"
    )
    history, reads = lazy_modules("retrodict.data.versions", "history", "reads")

__all__ = ["Data", "Quarantine"]


class Data(Namespace):
    """Versions of a project's tables.

    Examples
    --------
    >>> project.data.ingest("flights", frame).accepted  # doctest: +SKIP
    336776
    >>> project.data.read("flights@golden", known_at="2013-09-01T00:00Z")  # doctest: +SKIP
    """

    @property
    def quarantine(self) -> Quarantine:
        """Rows that checks set aside: list, show, resubmit."""
        return Quarantine(self._project)

    # batches become versions ------------------------------------------------------------------------------------------

    def ingest(
        self, table: str, rows: Any, *, replace: bool = False, update: bool = False, fill_missing: bool = False,
        format: Literal["csv", "jsonl", "parquet", "arrow"] | None = None,  # noqa: A002  # the option's name
        sql: str | None = None,
    ) -> IngestReport:  # fmt: skip
        """Check rows and publish them as one new version of a table.

        CSV, Parquet, JSON lines, Arrow; a folder, a glob in quotes, "-" for standard input, or the rows of a query:
        --sql, with the URL of a database as FILE, in which ${NAME} stands for a variable of the environment. Rows in =
        accepted + quarantined; the same batch twice changes nothing.

        Parameters
        ----------
        table : str
            Name of a defined table.
        rows : path, list of paths, frame, Arrow table or reader, DuckDB relation
            The batch.
        replace : bool
            Replace the table's content; older versions stay readable.
        update : bool
            Rows take the place of those that have their key; the others are added.
        fill_missing : bool
            Columns of the table that the batch lacks become null.
        format : str, optional
            Format of standard input, or of unusual names.
        sql : str, optional
            Ingest the rows of a query.
        """
        if replace and update:
            raise InputError("a batch must replace a table or update it, not both", where=f"table {table}",
                             got="replace and update", remedy="Leave one of them out")  # fmt: skip
        mode: ingest.Mode = "overwrite" if replace else "update" if update else "append"
        source = _batch_source(rows, sql)
        with self._project.progress(f"ingest {table}"):
            return ingest.ingest(self._workspace, table, source, mode=mode, format=format, fill_missing=fill_missing)

    def validate(
        self, table: str, rows: Any, *, format: Literal["csv", "jsonl", "parquet", "arrow"] | None = None,  # noqa: A002
        sql: str | None = None, all_: bool = False,
    ) -> IngestPreview:  # fmt: skip
        """Check rows as an ingest would, and write nothing.

        Exits with 1 if the batch would not be published.

        Parameters
        ----------
        table : str
            Name of a defined table.
        rows : as for ``ingest``
            The batch.
        format : str, optional
            Format of standard input, or of unusual names.
        sql : str, optional
            Check the rows of a query.
        all_ : bool
            Show the checks that pass, too.
        """
        with self._project.progress(f"validate {table}"):
            return preview.preview(self._workspace, table, _batch_source(rows, sql), format=format, show_passed=all_)

    def unpublished(self, table: str) -> Listing[Unpublished]:
        """List the batches that a critical or high check halted.

        Their rows can be looked at with: retrodict data show TABLE__unpublished@V

        Parameters
        ----------
        table : str
            Name of a defined table.
        """
        self._workspace.definitions.get(Table, table)
        batches = unpublished.unpublished_batches(self._workspace, table)

        def row(b: Unpublished) -> tuple[object, ...]:
            reasons = [f"{check}: {reason}" for check, reason in b.failed.items()]
            return b.version, b.state, b.rows, short_hash(b.batch), b.origin, reasons

        columns = ("version>", "state", "rows>", "batch?", "from?", "halted by")
        empty = f"No batch of {table} was ever halted."
        return Listing.table("batches", batches, columns, row, empty=empty, more={"table": table})

    def release(self, table: str, version: int, *, reason: str) -> IngestReport:
        """Publish a halted batch (V of 'data unpublished') in spite of its checks.

        Parameters
        ----------
        table : str
            Name of a defined table.
        version : int
            Version of the halted batch.
        reason : str
            Why it is published in spite of its checks; kept in the ledger.
        """
        return unpublished.release(self._workspace, table, version, reason=reason)

    def drop(self, table: str, version: int, *, reason: str) -> Unpublished:
        """Decide that a halted batch (V of 'data unpublished') will not be published.

        Parameters
        ----------
        table : str
            Name of a defined table.
        version : int
            Version of the halted batch.
        reason : str
            Why it will not be published; kept in the ledger.
        """
        return unpublished.drop(self._workspace, table, version, reason=reason)

    # versions ---------------------------------------------------------------------------------------------------------

    @names_damage
    def history(self, table: str, *, limit: int = 20) -> Listing[VersionSummary]:
        """List the versions of a table: how each was made, its tags, failed checks.

        Parameters
        ----------
        table : str
            Name of a stored table.
        limit : int
            Newest versions to list.
        """
        versions, total = history.version_history(self._workspace, table, limit=limit)

        def blocks() -> Sequence[Block | None]:
            rows = [
                (v.version, when(v.time), v.mode, v.rows_in, v.accepted, v.quarantined, v.rows, v.tags,
                 v.checks_failed, v.schema, short_hash(v.batch), v.origin)
                for v in versions
            ]  # fmt: skip
            columns = ("version>", "written", "mode", "rows in>?", "accepted>?", "quarantined>", "total>", "tags",
                       "failed checks", "schema?", "batch?", "from?")  # fmt: skip
            older = total - len(versions)
            note = f"{count(older)} older versions are not listed; --limit shows more." if older else None
            return [Grid(columns, rows), note]

        return Listing("versions", versions, blocks, more={"table": table, "total": total})

    @names_damage
    def show(self, ref: str, *, limit: int = 10, known_at: Time | None = None, source: str | None = None) -> TableHead:
        """Show the columns and first rows of a table; REF is a version, a tag, or a time.

        Parameters
        ----------
        ref : str
            ``flights``, ``flights@12``, ``flights@golden`` or ``flights@2024-03-01T00:00Z``.
        limit : int
            Rows to show.
        known_at : Time, optional
            Only rows that were known before this time.
        source : str, optional
            Source whose clock --known-at uses, where a table has several.
        """
        moment = instant(known_at, "known_at")
        return reads.read_head(self._workspace, ref, limit=limit, known_at=moment, source=source)

    def read(
        self, ref: str, *, columns: Sequence[str] | None = None, known_at: Time | None = None,
        source: str | None = None,
    ) -> pa.Table:  # fmt: skip
        """Read the rows of a version.

        Parameters
        ----------
        ref : str
            ``flights``, ``flights@12``, ``flights@golden`` or ``flights@2024-03-01T00:00Z``.
        columns : sequence of str, optional
            What to read; everything by default.
        known_at : Time, optional
            Only rows that were known before this time.
        source : str, optional
            Source whose clock ``known_at`` uses, where a table has several.

        Returns
        -------
        pyarrow.Table
            In the order the rows were written.
        """
        moment = instant(known_at, "known_at")
        return versions.read(self._workspace, ref, columns=columns, known_at=moment, source=source)

    def diff(
        self, before: str, after: str, *, key: Sequence[str] | None = None, output: str | Path | None = None,
        rows: int | None = None, memory: str = "1.5GB",
    ) -> Diff:  # fmt: skip
        """Compare two versions: schema, rows added, removed, changed by key, statistics.

        Parameters
        ----------
        before, after : str
            References, as for ``show``.
        key : sequence of str, optional
            Columns that identify a row; by default the key of the table's definition.
        output : path, optional
            Write the differences to a .parquet or .csv file.
        rows : int, optional
            Most differences that the file gets; all by default.
        memory : str
            Limit of memory; beyond it, files are used.
        """
        with self._project.progress(f"diff {before} {after}"):
            return versions.diff(self._workspace, before, after, key=key, output=output, rows=rows, memory=memory)

    def tag(
        self, ref: str, tag: str, *, hold: bool = False, remove: bool = False, release: bool = False, reason: str = ""
    ) -> Tag:
        """Name a version; a tag is moved by naming another one, and no vacuum deletes it.

        Parameters
        ----------
        ref : str
            What the tag shall mean.
        tag : str
            Name, like ``golden``.
        hold : bool
            Make it a legal hold: not moved or removed without --release.
        remove : bool
            Let the name mean nothing from now on.
        release : bool
            Give up the legal hold that the tag is.
        reason : str
            Why, for the ledger; needed to remove a tag and to release a hold.
        """
        if not remove:
            return versions.set_tag(self._workspace, ref, tag, hold=hold, release=release, reason=reason)
        if hold:
            raise InputError(
                "a tag must either be removed or become a hold", where=f"tag {tag}", got="--remove and --hold",
                remedy="Leave one of the two out",
            )  # fmt: skip
        table = versions.resolve(self._workspace, ref).name
        return versions.remove_tag(self._workspace, table, tag, reason=reason, release=release)

    @names_damage
    def tags(self, table: str | None = None, tag: str | None = None, *, at: Time | None = None) -> Listing[Tag]:
        """List tags and legal holds, as they are or were; with NAME, every change of one.

        Parameters
        ----------
        table : str, optional
            Only those of this table.
        tag : str, optional
            Every change of this tag, the oldest first.
        at : Time, optional
            What the tags meant at this time.
        """
        moment = instant(at, "at")
        if table is None or tag is None:
            tags = versions.list_tags(self._workspace, table, at=moment)
        else:
            changes = versions.tag_history(self._workspace, table, tag)
            tags = [change for change in changes if moment is None or change.time <= moment]

        def row(t: Tag) -> tuple[object, ...]:
            return f"{t.dataset}@{t.tag}", t.version, t.hold, t.action, when(t.time), t.actor, t.reason

        columns = ("tag", "version>", "hold", "change", "since?", "by", "reason")
        return Listing.table("tags", tags, columns, row, empty="There are no tags.")

    def rollback(self, table: str, *, to: str, reason: str) -> RollbackReport:
        """Make a new version with the content of an older one; nothing is deleted.

        Parameters
        ----------
        table : str
            Name of a stored table.
        to : str
            Older version, tag, or time.
        reason : str
            Why, for the ledger.
        """
        return versions.rollback(self._workspace, table, to, reason)

    def compact(self, table: str) -> CompactReport:
        """Write the newest rows into fewer files; older versions stay readable.

        Parameters
        ----------
        table : str
            Name of a stored table.
        """
        with self._project.progress(f"compact {table}"):
            return versions.compact(self._workspace, table)

    def vacuum(self, table: str, *, dry_run: bool, older_than: str = "7d") -> VacuumResult:
        """Delete the versions that no tag, hold, run, model or other thing refers to.

        Parameters
        ----------
        table : str
            Name of a stored table.
        dry_run : bool
            Only say what would be deleted, and what keeps the rest.
        older_than : str
            Age below which a version is kept in any case.
        """
        return versions.vacuum(self._workspace, table, dry_run=dry_run, older_than=older_than)

    # what is in a table -----------------------------------------------------------------------------------------------

    def profile(self, *rows: Any, html: str | Path | None = None, top: int = 10, seed: int = 0) -> Profile:
        """Show what is in a version of a table, or in files, before anything is built on it.

        Types, missing values, distinct values, extremes, quantiles, shapes of texts, candidate keys, and what deserves
        a look. Columns of texts that look personal show no value.

        Parameters
        ----------
        rows : str, path, frame, Arrow table
            A reference to a table, files, or rows in memory.
        html : path, optional
            Write a page with every column, histograms and correlations to this file.
        top : int
            Most frequent values per column.
        seed : int
            Of the sample for correlations.
        """
        with self._project.progress("profile"):
            facts = profiling.profile(self._table_or_files(rows), top=top, seed=seed)
        if html is not None:
            write_text(html, profiling.profile_html(facts))
        return facts

    def suggest(self, *rows: Any, output: str | Path | None = None) -> SuggestedTable:
        """Suggest a table's definition with checks that hold on its rows, as Python to paste.

        Every check was judged on all rows; bounds leave room for what sampling alone moves in the next batch.

        Parameters
        ----------
        rows : str, path, frame, Arrow table
            A reference to a table, files, or rows in memory.
        output : path, optional
            Write the definition to this file.
        """
        from retrodict.data.profiling.suggest import suggest_definition

        with self._project.progress("suggest"):
            return suggest_definition(self._table_or_files(rows), output=output)

    def health(
        self, table: str, *, version: int | None = None, history: bool = False, html: str | Path | None = None,
        png: str | Path | None = None,
    ) -> Health | Listing[Health]:  # fmt: skip
        """Score a version: completeness, accuracy, consistency, timeliness, from its checks.

        A dimension without a check that could be evaluated is not evaluable, and has no part in the overall score.

        Parameters
        ----------
        table : str
            Name of a stored table.
        version : int, optional
            Version to score.  [default: the newest with checks]
        history : bool
            Score every version.
        html : path, optional
            Write a page with the scores and where they come from to this file.
        png : path, optional
            Draw the history into this file (extra: plots).
        """
        from retrodict.data.profiling.health import history_blocks

        scores = profiling.health(self._workspace, table, version)
        versions = [
            entry for entry in profiling.health_history(self._workspace, table) if entry.version <= scores.version
        ]
        if html is not None:
            write_text(html, profiling.health_html(versions))
        if png is not None:
            Path(png).parent.mkdir(parents=True, exist_ok=True)
            profiling.health_png(versions, png)
        if not history:
            return scores
        return Listing("versions", versions, lambda: history_blocks(versions), more={"table": table})

    @staticmethod
    def import_checks(
        file: str | Path, *, format: Literal["great-expectations", "pandera"] | None = None,  # noqa: A002
        table: str | None = None,
    ) -> ImportedTable:  # fmt: skip
        """Read a suite of Great Expectations or a schema of Pandera as the table it defines.

        Parameters
        ----------
        file : path
            JSON or YAML.
        format : str, optional
            What wrote it.  [default: seen from the file]
        table : str, optional
            Name of the table.  [default: the file's]
        """
        from retrodict.data.interchange.file import read_checks

        return read_checks(Path(file), format=format, table=table)

    def _table_or_files(self, rows: Sequence[Any]) -> Any:
        """A table of the project with its workspace; a stored one goes before a file or folder of the same name."""
        if len(rows) > 1:
            return list(rows)
        (source,) = rows
        if not isinstance(source, str):
            return source
        return source if readers.names_file(source) and not self._is_stored(source) else (self._workspace, source)

    def _is_stored(self, ref: str) -> bool:
        try:
            return ref.partition("@")[0] in self._workspace.tables.names()
        except ConfigurationError:  # files can be looked at outside of every project
            return False


class Quarantine(Namespace):
    """Rows of a project's tables that checks set aside.

    Examples
    --------
    >>> project.data.quarantine.show("flights", output="repair.jsonl")  # doctest: +SKIP
    >>> project.data.quarantine.resubmit("flights", "repair.jsonl")  # doctest: +SKIP
    """

    def list(self, table: str) -> Listing[QuarantinedBatch]:
        """List the batches that have rows in quarantine, and why.

        Parameters
        ----------
        table : str
            Name of a defined table.
        """
        batches = quarantine.quarantined_batches(self._workspace, table)
        waiting = sum(batch.waiting for batch in batches)

        def blocks() -> Sequence[Block | None]:
            rows = [
                (short_hash(b.batch), b.time, b.rows, b.waiting, [f"{c}: {count(n)}" for c, n in b.reasons.items()],
                 b.origin)
                for b in batches
            ]  # fmt: skip
            if not rows:
                return [f"No row of {table} was ever set aside."]
            columns = ("batch", "set aside?", "rows>", "waiting>", "checks", "from?")
            return [f"{count(waiting)} rows of {table} are waiting in quarantine", Grid(columns, rows)]

        more = {"table": table, "rows": sum(batch.rows for batch in batches), "waiting": waiting}
        return Listing("batches", batches, blocks, more=more)

    def show(
        self, table: str, *, batch: str | None = None, check: str | None = None, limit: int = 10,
        output: str | Path | None = None,
    ) -> quarantine.QuarantinedRows:  # fmt: skip
        """Show rows that are waiting in quarantine, with the values they came with.

        With --output they are written as JSON lines: correct the values, keep _batch and _row, and resubmit the file.

        Parameters
        ----------
        table : str
            Name of a defined table.
        batch : str, optional
            Only rows of this batch; the beginning of its id is enough.
        check : str, optional
            Only rows that failed this check.
        limit : int
            Rows to show.
        output : path, optional
            Write all of them as JSON lines to repair.
        """
        self._workspace.definitions.get(Table, table)
        rows = quarantine.quarantined_rows(self._workspace, table, batch=batch, check=check)
        waiting = quarantine.QuarantinedRows(table, rows, output, limit)
        if output is not None:
            waiting.write(Path(output))
        return waiting

    def resubmit(self, table: str, rows: Any = None, *, batch: str | None = None) -> IngestReport:
        """Take repaired rows through the checks again, or the originals after a check was changed.

        What fails again is set aside again, under the new batch.

        Parameters
        ----------
        table : str
            Name of a defined table.
        rows : path, frame, Arrow table, optional
            Repaired rows with ``_batch`` and ``_row``.  [default: the originals]
        batch : str, optional
            Without a file: only the rows of this batch.
        """
        if rows is not None and batch is not None:
            raise InputError(
                "a batch must only be named without repaired rows", where=f"table {table}, resubmit", got=batch,
                remedy="Leave one of the two out: a file says itself which rows it repairs",
            )  # fmt: skip
        return quarantine.resubmit(self._workspace, table, rows, batch=batch)


def _batch_source(rows: Any, sql: str | None) -> Any:
    """What ``open_batch`` reads: one path by itself, or the rows of a query."""
    paths = list(rows) if isinstance(rows, list | tuple) else [rows]
    if sql is None:
        return paths[0] if len(paths) == 1 else paths
    if len(paths) != 1 or not isinstance(paths[0], str):
        raise InputError(
            "a query must go to one database", where="sql", got=f"{len(paths)} sources",
            remedy="Pass the URL of the database as the rows",
        )  # fmt: skip
    return readers.SqlQuery(paths[0], sql)
