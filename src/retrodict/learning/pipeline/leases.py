"""Who executes a step: a lease in the records, taken with a number that only ever grows.

Its holder names the process that does the work and says every few seconds that it is alive. When that process is gone,
or has said nothing for as long as a lease lasts, another one takes the step with the next number. Only the holder of
the newest number may record a result, in the transaction of the record: a process that slept through its lease cannot.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, MetaData, String, Table, insert, select, update

from retrodict.core.errors import RefusedError, RetrodictError
from retrodict.learning.runs.heartbeat import has_process, now_us, sign_of_life
from retrodict.learning.runs.schema import heartbeats
from retrodict.workspace import Workspace

__all__ = ["LASTS_S", "Lease", "Leases", "metadata"]

LASTS_S = 30.0
"""How long a holder may say nothing; it speaks three times as often."""

metadata = MetaData()

leases = Table(
    "pipeline_leases",
    metadata,
    Column("pipeline", String(63), primary_key=True),
    Column("step", String(63), primary_key=True),
    Column("partition", String(200), primary_key=True),
    Column("token", BigInteger, nullable=False),
    Column("run", String(26), nullable=False),
    Column("machine", String(120), nullable=False),
    Column("process", BigInteger, nullable=False),
    Column("began", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("worker", BigInteger, nullable=False, server_default="0"),
    Column("worker_began", BigInteger, nullable=False, server_default="0"),
)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to execute one step of one partition and to record what came of it."""

    pipeline: str
    step: str
    partition: str
    token: int
    run: str

    def mine(self) -> Any:
        """Condition under which it still stands."""
        row = leases.c
        return (_is_of(self.pipeline, self.step, self.partition)
                & (row.token == self.token) & (row.run == self.run))  # fmt: skip


def _is_of(pipeline: str, step: str, partition: str) -> Any:
    row = leases.c
    return (row.pipeline == pipeline) & (row.step == step) & (row.partition == partition)


def _is_held(row: Any, time: int) -> bool:
    """Whether holder or worker may be alive: between the end of the work and its record lies a moment."""
    works = row.worker and sign_of_life(row.worker)["began"] == row.worker_began and row.worker_began
    return bool(now_us() - time < LASTS_S * 1e6 and (has_process(row) or works))


class Leases:
    """The leases of one process, renewed from a thread of its own."""

    def __init__(self, workspace: Workspace, pipeline: str) -> None:
        self._workspace, self._pipeline = workspace, pipeline
        self._leases: dict[Lease, None] = {}
        self._lock = threading.Lock()
        self.lost: set[Lease] = set()
        self._ahead: dict[tuple[str, str, int, int], int] = {}  # signs from the future, and when each was first seen
        workspace.records.ensure(metadata)

    def acquire(self, step: str, partition: str, run: str) -> Lease | None:
        """Take a step; None while another process has it."""
        place = _is_of(self._pipeline, step, partition)
        with self._workspace.records.write() as connection:
            row = connection.execute(select(leases).where(place)).first()
            if row is not None and row.run and _is_held(row, self._sign(row)):
                return None
            lease = Lease(self._pipeline, step, partition, 1 if row is None else row.token + 1, run)
            values = {"token": lease.token, "run": run, "worker": 0, "worker_began": 0, **sign_of_life()}
            if row is None:
                names = {"pipeline": self._pipeline, "step": step, "partition": partition}
                connection.execute(insert(leases).values(**names, **values))
            else:
                connection.execute(update(leases).where(place).values(**values))
        with self._lock:
            self._leases[lease] = None
        return lease

    def _sign(self, row: Any) -> int:
        """When a holder spoke last; by a clock that is ahead of ours, when this very sign was first seen."""
        if row.time - now_us() < LASTS_S * 1e6:
            return int(row.time)
        return self._ahead.setdefault((row.step, row.partition, row.token, row.time), now_us())

    def hand_over(self, lease: Lease, process: int) -> None:
        """Name the process that does the work: while it lives nobody takes the step, even if this one is gone."""
        with self._workspace.records.write() as connection:
            self._check(connection, lease, worker=process, worker_began=sign_of_life(process)["began"])

    def release(self, connection: Connection, lease: Lease) -> None:
        """Give a step back, in the transaction that records what came of it.

        Raises
        ------
        RefusedError
            If another process has taken it meanwhile: nothing is recorded then.
        """
        self._check(connection, lease, run="")

    def _check(self, connection: Connection, lease: Lease, **values: Any) -> None:
        if not connection.execute(update(leases).where(lease.mine()).values(**values)).rowcount:
            raise RefusedError("a step must be recorded by the process that holds its lease",
                               where=f"pipeline {lease.pipeline}, step {lease.step}", got="a lease that another took",
                               remedy="Nothing is lost: that process executes the step")  # fmt: skip

    def forget(self, lease: Lease) -> None:
        """Renew it no longer."""
        with self._lock:
            self._leases.pop(lease, None)
            self.lost.discard(lease)

    @contextmanager
    def renewing(self, run: str) -> Iterator[None]:
        """Say every few seconds that this process lives: for a run, those of its steps, and their leases."""
        stop = threading.Event()
        thread = threading.Thread(target=self._renew, args=(run, stop), name="retrodict-leases", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _renew(self, run: str, stop: threading.Event) -> None:
        while not stop.wait(LASTS_S / 3):
            with self._lock:
                current = list(self._leases)
            try:
                with self._workspace.records.write() as connection:
                    runs = [run, *(lease.run for lease in current)]
                    connection.execute(update(heartbeats).where(heartbeats.c.run.in_(runs)).values(time=now_us()))
                    expired = [lease for lease in current if not connection.execute(
                        update(leases).where(lease.mine()).values(time=now_us())).rowcount]  # fmt: skip
            except RetrodictError:  # a store that is busy: the next sign is due soon
                continue
            with self._lock:
                self.lost |= {lease for lease in expired if lease in self._leases}
