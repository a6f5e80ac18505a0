"""How a policy's decisions come into the log: before the answer, just after it, or a share of them.

What is asked with a request id is in the log before its answer in every mode, since the log is where a repetition finds
it; where a policy samples there may be no record, so it takes no ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from msgspec import structs

from retrodict.core.errors import InputError
from retrodict.decisions.definitions import Policy
from retrodict.decisions.recorder import LATER_MS, LATER_RECORDS, Recorder
from retrodict.decisions.records import DecisionRecord, encode_record

__all__ = ["Sampling", "check_takes_ids", "describe_mode", "record_decisions"]


class Sampling:
    """Which decisions of sampled policies one process records, and how many it has left out of each."""

    def __init__(self) -> None:
        self._left_out: defaultdict[str, int] = defaultdict(int)

    def choose(self, policy: Policy, record: DecisionRecord) -> DecisionRecord | None:
        """Record as it goes into the log; None where it does not, which follows from its id."""
        if policy.share >= 1:
            return record
        place = int.from_bytes(blake2b(record.id.encode(), digest_size=8).digest(), "big")
        if place >= policy.share * 2**64:
            self._left_out[policy.name] += 1
            return None
        return structs.replace(record, share=policy.share, left_out=self._left_out.pop(policy.name, 0))


async def record_decisions(
    recorder: Recorder,
    sampling: Sampling,
    policy: Policy | None,
    records: Sequence[DecisionRecord],
    *,
    claims: Sequence[Any] = (),
    durable: Callable[[DecisionRecord], None],
) -> list[str | None]:
    """Record decisions of one policy as it says.

    Parameters
    ----------
    policy : Policy, optional
        None: it is not deployed any more, and its last decisions are recorded before their answers.
    claims
        As for :meth:`Recorder.write`.
    durable : callable
        Called with each record once it is in the log.

    Returns
    -------
    list of str or None
        What each answer says of its record: ``async``, ``no``, or nothing where it is durable.
    """
    sampled = [record if policy is None else sampling.choose(policy, record) for record in records]
    written = [record for record in sampled if record is not None]
    data = [encode_record(record, recorder.log.masks.value) for record in written]

    def note_durable() -> None:
        for record in written:
            durable(record)

    is_later = policy is not None and policy.record == "async"
    if is_later and not any(claims) and recorder.write_later(*data, durable=note_durable):
        return ["async"] * len(records)
    if data:
        await recorder.write(*data, claims=claims)
        note_durable()
    return ["no" if record is None else None for record in sampled]


def check_takes_ids(policy: Policy, *, where: str) -> None:
    """Refuse a request id where there may be no record that a repetition could be answered from."""
    if policy.share < 1:
        raise InputError("a request id must be for a policy that records every decision", where=where,
                         got=f"policy {policy.name}, record={policy.record!r}",
                         remedy="Leave it out, or deploy the policy with record='sync' or 'async'")  # fmt: skip


def describe_mode(policy: Policy) -> str:
    """What a caller may rely on, for ``GET /v1/policies/{policy}``."""
    if policy.record == "async":
        return f"async: a crash may take the records of the last {LATER_MS} ms, {LATER_RECORDS} at most"
    return policy.record or "sync"
