"""Delta tables as where rows to score come from, and where their scores go.

Scores are added by one commit that names the job as a transaction of Delta's: a job that is said again, or goes on
after a kill between the commit and its report, finds it in the log and adds nothing.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from retrodict.core.errors import InputError, RetryableError, check_known
from retrodict.core.identity import digest_file
from retrodict.learning.score_output import ScoreJob, ScoreOutput
from retrodict.stores.sql import quote, quote_text
from retrodict.stores.tables._types import cast_rows, table_schema

__all__ = ["DeltaOutput", "open_delta", "open_output"]

_PREFIX = "delta:"


def open_output(output: str, partition: Sequence[str] = (), *, replace: bool = False) -> ScoreOutput:
    """What an output names: a Delta table by ``delta:FOLDER`` or where there is one, else a file or a folder.

    Parameters
    ----------
    output : path
    partition : sequence of str
        Columns by which a Delta table that is made is partitioned.
    replace : bool
        Whether an output of another job is written over; of a Delta table the partitions that the rows are of, or all
        of one without partitions.
    """
    target = Path(output.removeprefix(_PREFIX)).absolute()
    if output.startswith(_PREFIX) or _is_delta(target):
        return DeltaOutput(target, replace, tuple(partition))
    if partition:
        raise InputError("an output that is partitioned must be a Delta table", where="score, partition", got=output,
                         remedy=f"Write {_PREFIX}{output}")  # fmt: skip
    return ScoreOutput(target, replace)


def _is_delta(folder: Path) -> bool:
    return (folder / "_delta_log").is_dir()


def open_delta(source: str) -> tuple[pa.RecordBatchReader, str] | None:
    """Rows of a Delta table, its newest version or the one that is named, and what names it; None if it is no table.

    Files are read in the order of their names: Delta promises none, and a job that goes on must meet the same chunks.

    Parameters
    ----------
    source : str
        ``FOLDER`` or ``FOLDER@VERSION``, with or without ``delta:`` before it.
    """
    text = source.removeprefix(_PREFIX)
    path, _, number = text.rpartition("@")
    version = int(number) if path and number.isdigit() and not _is_delta(Path(text)) else None
    folder = Path(text if version is None else path)
    if not _is_delta(folder):
        if source.startswith(_PREFIX):
            raise InputError("a Delta table must be a folder with a _delta_log", where="score", got=text,
                             remedy="Check the path")  # fmt: skip
        return None
    try:
        table = DeltaTable(folder, version=version)
        dataset = table.to_pyarrow_dataset()
    except DeltaError as error:
        raise InputError(f"a Delta table must be one that deltalake reads as files ({type(error).__name__})",
                         where=str(folder), got="another version, or deletion vectors" if version is None else version,
                         remedy="Name a version that there is, or purge deletion vectors first") from error  # fmt: skip
    fragments = sorted(dataset.get_fragments(), key=lambda fragment: fragment.path)
    ordered = pads.FileSystemDataset(fragments, dataset.schema, dataset.format, dataset.filesystem)
    return ordered.scanner().to_reader(), f"{_PREFIX}{folder.name}:{table.metadata().id}@{table.version()}"


@dataclass(frozen=True)
class DeltaOutput(ScoreOutput):
    """A Delta table to which each job adds its rows once, or whose partitions it replaces.

    Attributes
    ----------
    partition : tuple of str
        Columns by which a table that is made is partitioned.
    job : str
        Its parts, its report and the rows that were set aside are in ``TABLE.jobs/JOB``.
    """

    partition: tuple[str, ...] = ()
    job: str = ""

    @property
    def single(self) -> bool:
        """No file."""
        return False

    @property
    def parts(self) -> Path:
        """Folder of the job."""
        return self.target.with_name(f"{self.target.name}.jobs") / self.job[:16]

    def identity(self, chunk: int) -> dict[str, Any]:
        """Chunks make no other job: the rows in the table are the same."""
        del chunk
        return {"suffix": "delta"}

    def of(self, job: str) -> Self:
        """The output of one job."""
        return changed(self, job=job)

    def finished(self, ledger: Any, job: str) -> ScoreJob | None:
        """The report of the same job; one that replaces is done again, with the same end."""
        return None if self.replace else super().finished(ledger, job)

    @property
    def _app(self) -> str:
        return f"retrodict:scores:{self.job}"

    def _table(self) -> DeltaTable | None:
        return DeltaTable(self.target) if _is_delta(self.target) else None

    def _holds(self, digests: Sequence[str]) -> bool:
        table = self._table()
        return not digests or (table is not None and table.transaction_version(self._app) is not None)

    def _check_free(self, names: Sequence[str]) -> None:
        table = self._table()
        if table is None and self.target.exists() and (self.target.is_file() or any(self.target.iterdir())):
            raise InputError("a Delta output must be a Delta table, or not be there yet", where="score",
                             got=str(self.target), remedy="Choose another folder")  # fmt: skip
        for name in self.partition:
            check_known(name, names, "a partition must be a column of the output", where="score", what="column",
                        error=InputError)  # fmt: skip
        if table is None:
            return
        columns = [field.name for field in table.schema().fields]
        if {*columns} != {*names}:
            raise InputError("a Delta table must have the columns of the scores that are added", where=str(self.target),
                             got=sorted({*columns} ^ {*names}), remedy="Choose columns, or another table")  # fmt: skip
        if self.partition and list(self.partition) != table.metadata().partition_columns:
            raise InputError("partition must be what the Delta table is partitioned by", where=str(self.target),
                             got=list(self.partition), remedy="Leave it out")  # fmt: skip

    def publish(self, reports: Sequence[Mapping[str, Any]]) -> list[str]:
        """Add the rows in one commit, unless the log has it; SHA-256 of the data files of the commit."""
        if reports and (self.replace or not self._holds(["any"])):
            table = self._table()
            where, existing = str(self.target), None if table is None else pa.schema(table.schema().to_arrow())
            schema = table_schema(pq.read_schema(self.part(0)), existing, evolve=False, where=where)
            batches = (batch for rows in self.rows(len(reports))
                       for batch in cast_rows(rows, schema, where=where).to_batches())  # fmt: skip
            mode: Any = {"mode": "append"}
            if self.replace and table is not None:
                mode = self._replacement(table.metadata().partition_columns, len(reports))
            try:
                write_deltalake(
                    self.target, pa.RecordBatchReader.from_batches(schema, batches), **mode,
                    partition_by=list(self.partition) or None,
                    commit_properties=CommitProperties(app_transactions=[Transaction(self._app, 1)]),
                )  # fmt: skip
            except CommitFailedError as error:
                raise RetryableError("nobody else must change what a job of scores replaces", where=where,
                                     got="another commit", remedy="Say the same again") from error  # fmt: skip
            except DeltaError as error:  # its own words may hold values
                raise InputError("the scores must fit the Delta table", where=where, got=type(error).__name__,
                                 remedy="Choose columns, or another table") from error  # fmt: skip
        return [digest_file(file) for file in self.files()]

    def _replacement(self, partition: Sequence[str], parts: int) -> dict[str, Any]:
        """How a commit replaces the partitions of the rows, or all of a table without any."""
        if not partition:
            return {"mode": "overwrite"}
        values = pa.concat_tables([rows.select(partition) for rows in self.rows(parts)]).group_by(partition)
        terms = [" AND ".join(_equal(name, value) for name, value in row.items())
                 for row in values.aggregate([]).to_pylist()]  # fmt: skip
        return {"mode": "overwrite", "predicate": " OR ".join(f"({term})" for term in terms)} if terms else {
            "mode": "append"}  # fmt: skip

    def files(self) -> list[Path]:
        """Data files of the newest commit of the job, while the log and no vacuum has them."""
        table = self._table()
        for version in range(-1 if table is None else table.version(), -1, -1):
            entry = self.target / "_delta_log" / f"{version:020}.json"
            actions = [json.loads(line) for line in entry.read_text().splitlines()] if entry.exists() else []
            if any(action.get("txn", {}).get("appId") == self._app for action in actions):
                files = [self.target / unquote(action["add"]["path"]) for action in actions if "add" in action]
                return [file for file in files if file.is_file()]
        return []

    def finish(self, job: ScoreJob, digests: Sequence[str]) -> None:
        """Write the report, and throw the parts away: the table has their rows."""
        super().finish(job, digests)
        for path in self.parts.glob("part-*"):
            path.unlink()


def _equal(name: str, value: Any) -> str:
    if value is None:
        return f"{quote(name)} IS NULL"
    match value:
        case str():
            literal = quote_text(value)
        case bool() | int():
            literal = str(value).lower()
        case dt.date() if not isinstance(value, dt.datetime):
            literal = f"CAST('{value.isoformat()}' AS DATE)"
        case _:
            raise InputError("a partition that is replaced must be text, a whole number, a date or a yes or no",
                             where="score, partition", got=type(value).__name__,
                             remedy="Partition by another column")  # fmt: skip
    return f"{quote(name)} = {literal}"
