"""Where scores of many rows go, and what is kept beside them so that a job goes on after a kill and is done once.

Parts are written one by one; what was asked for (a file, rows of a table) appears whole or not at all, at the end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from retrodict.core.display import Block, Facts, Grid, Shown
from retrodict.core.errors import InputError
from retrodict.core.identity import digest_file
from retrodict.ledger import Ledger
from retrodict.stores._durable import place_file

__all__ = ["ScoreJob", "ScoreOutput"]

_SUFFIXES = (".parquet", ".csv")
_BEGUN = "begun.json"


@dataclass(frozen=True, slots=True, repr=False)
class ScoreJob(Shown):
    """What became of the rows.

    Attributes
    ----------
    model : str
        ``name@version``.
    job : str
        What it is known by: a digest of model, rows and options.
    rows, scored, aside : int
        Rows of the input; those with scores; those that were set aside. The last two are the first.
    reasons : dict of str to int
        Rows that were set aside, by the check they failed.
    chunks, earlier : int
        Chunks, and those of them that an earlier call had finished.
    seconds : float
        Of this call.
    output : str
        The file, the folder of parts, or the Delta table.
    aside_file : str or None
        File of the rows that were set aside, as JSON lines: ``row`` (place in the input, from 0), ``checks``,
        ``original``.
    versions : dict of str to int
        Versions of the tables that features were read from.
    psi : float or None
        Population stability index of the scores against those of the version's test rows; None where there is no
        profile of them, or no row was scored.
    input : str or None
        Of rows of a Delta table: ``delta:FOLDER:ID@VERSION``.
    """

    model: str
    job: str
    rows: int
    scored: int
    aside: int
    reasons: dict[str, int]
    chunks: int
    earlier: int
    seconds: float
    output: str
    aside_file: str | None
    versions: dict[str, int] = field(default_factory=dict)
    psi: float | None = None
    input: str | None = None

    @property
    def ok(self) -> bool:
        """Whether any row was scored, if there was one."""
        return self.scored > 0 or not self.rows

    def blocks(self) -> Sequence[Block | None]:
        """Counts, throughput, and reasons."""
        fresh = self.chunks - self.earlier
        rate = f"{self.scored / self.seconds:,.0f} rows/s" if fresh == self.chunks and self.seconds else None
        earlier = f"{self.earlier:,} of {self.chunks:,} chunks were done before" if self.earlier else None
        facts = {"read from": self.input,
                 "set aside": self.aside or None, "written to": self.output, "rows set aside in": self.aside_file,
                 "tables": [f"{name}@{version}" for name, version in self.versions.items()] or None,
                 "PSI against the test rows": None if self.psi is None else round(self.psi, 4),
                 "took": f"{self.seconds:.1f} s", "throughput": rate, "resumed": earlier}  # fmt: skip
        reasons = [(reason, count) for reason, count in sorted(self.reasons.items(), key=lambda item: -item[1])]
        return [f"{self.model}: {self.scored:,} of {self.rows:,} rows scored.", Facts(facts),
                Grid(("set aside for", "rows>"), reasons) if reasons else None]  # fmt: skip


def _digests(versions: Mapping[str, int], digest_of: Callable[[str, int], str]) -> dict[str, str]:
    return {name: digest_of(name, version) for name, version in versions.items()}


@dataclass(frozen=True)
class ScoreOutput:
    """Where scores go: a file, or a folder of parts. A file has its parts beside it until it is whole.

    ``replace``: whether what another job wrote is written over.
    """

    target: Path
    replace: bool = False

    @property
    def single(self) -> bool:
        """Whether it is one file."""
        return self.target.suffix in _SUFFIXES

    @property
    def parts(self) -> Path:
        """Folder of the parts."""
        return self.target.with_name(f"{self.target.name}.parts") if self.single else self.target

    @property
    def report(self) -> Path:
        """Says what became of the job; the last that is written."""
        return self.target.with_name(f"{self.target.name}.json") if self.single else self.parts / "job.json"

    def identity(self, chunk: int) -> dict[str, Any]:
        """What of it makes another job."""
        return {"chunk": chunk, "suffix": self.target.suffix}

    def of(self, job: str) -> Self:
        """The output of one job."""
        del job
        return self

    def part(self, number: int, suffix: str = ".parquet") -> Path:
        """File of a chunk."""
        return self.parts / f"part-{number:05}{suffix}"

    def finished(self, ledger: Ledger, job: str) -> ScoreJob | None:
        """The report of the same job, if what it wrote is there, byte for byte, and as the ledger has it."""
        try:
            report = json.loads(self.report.read_text())
            digests = report.pop("sha256")
            done = ScoreJob(**{**report, "earlier": report["chunks"], "seconds": 0.0})
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if done.job != job:
            return None
        entries = [entry.payload for entry in ledger.vouched("scores:") if entry.payload.get("job") == job]
        counts = {"sha256": digests, "rows": done.rows, "scored": done.scored, "aside": done.aside}
        same = self._holds(digests) and any(counts.items() <= entry.items() for entry in entries)
        if not same and self.replace:
            return None
        if not entries:  # its tables may be others under the same numbers
            raise InputError("an output must be written by one project", where="score",
                             got=f"{self.target}, a job that the ledger does not have",
                             remedy="Choose another one, or say replace")  # fmt: skip
        if not same:
            raise InputError("the output must be as this job wrote it, and was altered since", where="score",
                             got=str(self.target), remedy="Say replace to write it again")  # fmt: skip
        return done

    def _holds(self, digests: Sequence[str]) -> bool:
        return digests == [digest_file(file) for file in self.files()]

    def files(self) -> list[Path]:
        """Files that hold the scores of the job, as far as they are there."""
        files = [self.target] if self.single else sorted(self.parts.glob("part-*.parquet"))
        return [file for file in files if file.is_file()]

    def begin(
        self, job: str, versions: Mapping[str, int], names: Sequence[str], digest_of: Callable[[str, int], str]
    ) -> dict[str, int]:
        """Versions of tables: these, or those of a call for the same job that did not come to its end.

        ``names``: columns that are going to be written. ``digest_of``: what the version of a table is known by; a call
        from another project, where the number is that of other rows, is another job.
        """
        note = self.parts / _BEGUN
        with suppress(OSError, ValueError, KeyError):
            state = json.loads(note.read_text())
            if state["job"] == job and state["digests"] == _digests(state["versions"], digest_of):
                return dict(state["versions"])
        self._check_free(names)
        if self.parts.is_dir():
            shutil.rmtree(self.parts)
        self.parts.mkdir(parents=True)
        digests = _digests(versions, digest_of)
        place_file(note, json.dumps({"job": job, "versions": dict(versions), "digests": digests}).encode())
        return dict(versions)

    def _check_free(self, names: Sequence[str]) -> None:
        del names
        elsewhere = (self.parts / _BEGUN).exists()  # of a job that did not come to its end: it may go on
        ours = elsewhere or self.report.exists()
        folder = self.parts.is_dir() and any(self.parts.iterdir())
        occupied = self.target.exists() if self.single else folder or self.target.is_file()
        if (occupied or elsewhere) and not self.replace:
            raise InputError("the output must not be there yet, or be this job's", where="score",
                             got=str(self.target), remedy="Choose another one, or say replace")  # fmt: skip
        if (folder and not ours) or (not self.single and self.target.is_file()):
            raise InputError(
                "what is replaced must be the output of such a job", where="score", got=str(self.parts),
                remedy="Empty it, or choose another one: .parquet, .csv, a folder, or delta:FOLDER",
            )  # fmt: skip

    def chunk(self, number: int, start: int, rows: int) -> dict[str, Any] | None:
        """Report of a chunk that is done, if its file is what was written."""
        try:
            report: dict[str, Any] = json.loads(self.part(number, ".json").read_text())
            intact = (report["start"], report["rows"]) == (start, rows)
            intact = intact and {"counts", "span"} <= report.keys()  # else of a release that did not count
            intact = intact and digest_file(self.part(number)) == report["sha256"]
        except (OSError, ValueError, KeyError):
            return None
        return report if intact else None

    def write_aside(self, reports: Sequence[Mapping[str, Any]]) -> str | None:
        """One file of all rows that were set aside."""
        path = self.target.with_name(f"{self.target.name}.aside.jsonl") if self.single else self.parts / "aside.jsonl"
        lines = [self.part(number, ".aside") for number, report in enumerate(reports) if report["aside"]]
        if not lines:
            path.unlink(missing_ok=True)
            return None
        with path.open("wb") as file:
            for part in lines:
                file.write(part.read_bytes())
        return str(path)

    def publish(self, reports: Sequence[Mapping[str, Any]]) -> list[str]:
        """Make one file of the parts where one was asked for, whole or not at all; SHA-256 of what is there now."""
        if not self.single:
            return [report["sha256"] for report in reports]
        fresh = self.parts / f"whole{self.target.suffix}"
        schema = pq.read_schema(self.part(0)) if reports else pa.schema([])
        writer: Any = pq.ParquetWriter
        if self.target.suffix == ".csv":
            writer, schema = pacsv.CSVWriter, pa.schema([(one.name, _plain(one.type)) for one in schema])
        try:
            with writer(fresh, schema) as file:
                for rows in self.rows(len(reports)):
                    file.write_table(rows.cast(schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError("a file of CSV must hold plain values only", where="score", got=str(schema.types),
                             remedy="Write Parquet, or leave columns out") from error  # fmt: skip
        fresh.replace(self.target)
        return [digest_file(self.target)]

    def rows(self, parts: int) -> Iterator[pa.Table]:
        """Rows of the first parts in their order, some at a time."""
        for number in range(parts):
            with pq.ParquetFile(self.part(number)) as opened:
                for rows in opened.iter_batches():
                    yield pa.Table.from_batches([rows])

    def finish(self, job: ScoreJob, digests: Sequence[str]) -> None:
        """Write the report, by which the same call knows that there is nothing to do."""
        place_file(self.report, json.dumps({"sha256": digests, **job.to_dict()}, indent=1).encode())
        if self.single:
            shutil.rmtree(self.parts)
            return
        for path in (self.parts / _BEGUN, *self.parts.glob("part-*.json"), *self.parts.glob("part-*.aside")):
            path.unlink()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
