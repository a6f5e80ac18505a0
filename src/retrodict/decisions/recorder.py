"""Durable before the answer: decision records are appended and synced in groups, one sync for all that wait.

While one group is being synced the next one gathers, so the cost of a sync is shared by as many requests as arrive
meanwhile, and no timer adds latency. Each process writes a stream of its own; who holds which is settled by the
streams' own locks.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from retrodict.core.errors import BusyError, RetryableError
from retrodict.decisions.log import STREAM_PREFIX
from retrodict.stores.streams.base import StreamStore, StreamWriter, TornTail

__all__ = ["Recorder"]

_MOST_WRITERS = 64


class Recorder:
    """Appends records to the first decision stream that no other process holds.

    Promises: when ``await write(...)`` returns, the record survives ``kill -9`` and a loss of power; when it raises,
    the record is not in the log. For one event loop; the sync runs in a thread of its own.
    """

    def __init__(self, streams: StreamStore) -> None:
        self.stream, self._writer = _first_free(streams)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="retrodict-log")
        self._task: asyncio.Task[None] | None = None

    @property
    def recovered(self) -> list[TornTail]:
        """What was cut off the stream's end when it was opened."""
        return self._writer.recovered

    async def write(self, record: bytes) -> None:
        """Wait until the record is durable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        await done

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await loop.run_in_executor(self._thread, self._writer.append, [record for record, _ in group])
            except OSError as error:
                failure = RetryableError(
                    "the decision log can be written",
                    where=self.stream,
                    got=type(error).__name__,
                    remedy="Check the disk; no answer is given before its record is durable",
                )
                _settle(group, failure)
            except Exception as error:  # noqa: BLE001  # handed to every waiting request
                _settle(group, error)
            else:
                _settle(group, None)

    async def close(self) -> None:
        """Finish what waits, close the segment so that it can be sealed, let go of the stream."""
        if self._task is not None:
            await self._task
        self._thread.shutdown()
        self._writer.roll()
        self._writer.close()


def _settle(group: list[tuple[bytes, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, done in group:
        if done.cancelled():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def _first_free(streams: StreamStore) -> tuple[str, StreamWriter]:
    for number in range(_MOST_WRITERS):
        stream = f"{STREAM_PREFIX}{number}"
        with suppress(BusyError):
            return stream, streams.open_writer(stream, timeout_s=0.0)
    raise BusyError(
        f"one of {_MOST_WRITERS} decision streams is free",
        where="decision log",
        remedy="Stop a server of this project first",
    )
