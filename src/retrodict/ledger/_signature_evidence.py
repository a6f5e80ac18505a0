"""Holds the chain against what was signed: checkpoints, the signed end in the records, witnesses, and whose key counts.

A signature costs as much as reading ten entries. Of very many statements that agree with the chain, the newest and a
random sample are checked: the newest covers all entries, and an older one that was tampered with but still states
the hash of its entry misleads nobody. Where the chain is at fault, or the sample is, every one is.
"""

from __future__ import annotations

import bisect
import heapq
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import SystemRandom

from retrodict.core.errors import RetrodictError
from retrodict.ledger._replay import AuditFinding, Chain
from retrodict.ledger.checkpoints import Checkpoint, count_lines, identity_of, scan_checkpoints
from retrodict.ledger.ends import ACCEPT, KEY_ACTIONS
from retrodict.ledger.keys import is_endorsed
from retrodict.ledger.witnesses import Witness

_ALL, _SOME = 10_000, 1_000
_TELLING_S = 1.0  # from when a statement is signed until a witness has it


@dataclass(slots=True)
class Statements:
    """What was found about the statements of a file: how many there are, whose signatures were checked, the last."""

    count: int = 0
    signatures: int = 0
    signed: int = 0
    newest: Checkpoint | None = None
    findings: list[AuditFinding] = field(default_factory=list)
    roots: list[tuple[int, str]] = field(default_factory=list)

    def check(self, chain: Chain, statement: Checkpoint) -> None:
        """Check a statement and its signature."""
        self.signatures += 1
        if (finding := check_statement(chain, statement)) is not None:
            self.findings.append(finding)
            return
        self.signed = max(self.signed, statement.sequence)
        if self.newest is None or statement.sequence > self.newest.sequence:
            self.newest = statement
        chain.trust(statement.sequence)
        self.roots += [(statement.sequence, statement.root)] if statement.root else []


def check_statements(chain: Chain, place: Path, size: int, *, every: bool, complete: bool) -> Statements:
    """Hold the chain against the first bytes of a file of checkpoints.

    Of a ``complete`` one, the project's own, no statement may be missing that a later one says was there.
    """
    lines, result = count_lines(place), Statements()
    every = every or lines <= _ALL or bool(chain.findings)
    # Not by a seed: whoever could tell which ones are looked at would alter others.
    drawn = set() if every else set(SystemRandom().sample(range(1, lines + 1), _SOME))
    sample: list[Checkpoint] = []
    newest: list[tuple[int, int, Checkpoint]] = []
    present = bytearray(chain.last + 1)  # by entry: whether a statement on it was met
    for number, statement in scan_checkpoints(place, size):
        if statement is None:
            detail = "it is no signed statement any more"
            result.findings.append(AuditFinding("altered", f"checkpoints, line {number}", detail))
            continue
        result.count += 1
        for sequence in (statement.after, statement.sequence):
            if 0 < sequence < len(present):
                if complete and sequence == statement.after and not present[sequence]:
                    result.findings.append(_taken_out(sequence))
                present[sequence] = 1
        if every or check_statement(chain, statement, signature=False) is not None:
            result.check(chain, statement)
        elif number in drawn:
            sample.append(statement)
        else:
            heapq.heappush(newest, (statement.sequence, number, statement))
            if len(newest) > _SOME:
                heapq.heappop(newest)
    before = len(result.findings)
    for statement in (*sample, *(one for *_, one in newest)):
        result.check(chain, statement)
    if not chain.findings:  # where the chain is not what it was, the tree cannot be either: that is said once
        detail = "the entries do not give the root of the tree that was signed"
        result.findings += [AuditFinding("altered", f"checkpoint of entry {sequence}", detail)
                            for sequence, root in result.roots if chain.root(sequence) != root]  # fmt: skip
    if not every and len(result.findings) > before:
        return check_statements(chain, place, size, every=True, complete=complete)
    if chain.rows and not result.count:
        detail = f"no signed checkpoint in {place.name!r}: a cut-off end could not be seen"
        result.findings.append(AuditFinding("removed", "checkpoints", detail))
    return result


def _stands(sequence: int, place: Path) -> bool:
    return not sequence or any(one is not None and one.sequence == sequence for _, one in scan_checkpoints(place))


def _taken_out(sequence: int) -> AuditFinding:
    detail = "a later statement says that it stood in the file of checkpoints, and it does not"
    return AuditFinding("removed", f"checkpoint of entry {sequence}", detail)


def check_statement(chain: Chain, statement: Checkpoint, *, signature: bool = True) -> AuditFinding | None:
    """What is wrong with a statement; that its signature fits is taken for granted where it is not to be checked."""
    where, entry = f"checkpoint of entry {statement.sequence}", f"entry {statement.sequence}"
    at = bisect.bisect_right(chain.keys, statement.sequence, key=lambda key: key[0])
    trusted = chain.keys[at - 1][1] if at else None  # None: the chain is gone, or does not begin as ours do
    if (trusted is not None and statement.public_key != trusted) or (signature and not statement.is_valid()):
        return AuditFinding("altered", where, "the signature is not by the ledger's key over this statement")
    if statement.sequence > chain.last:
        return AuditFinding("cut off", entry, "it was signed, and the chain no longer reaches it")
    if statement.hash != chain.hash_of(statement.sequence):
        return AuditFinding("altered", entry, "its hash is not the one that was signed")
    if statement.log and statement.log != chain.hash_of(1):
        return AuditFinding("altered", where, "it is a statement on another ledger")
    if trusted is None:
        return AuditFinding("altered", where, "the chain does not say whose signature counts")
    return None


def check_end(chain: Chain, statements: Statements, stored: list[Checkpoint], complete: Path | None) -> None:
    """Take in the signed end that the records hold, and name what comes after all signatures."""
    newest = statements.newest
    if newest is not None and newest.root and not any(one.sequence >= newest.sequence for one in stored):
        detail = f"the records must hold a statement on entry {newest.sequence}, or a later one, and hold none"
        statements.findings.append(AuditFinding("removed", "signed end", detail))
    for statement in stored:
        # Looked for in all of the file: it may have grown since it was read.
        if complete and not _stands(statement.after, complete):
            gap = _taken_out(statement.after)
            statements.findings += [] if gap in statements.findings else [gap]
        if (finding := check_statement(chain, statement)) is None:
            statements.signed = max(statements.signed, statement.sequence)
            chain.trust(statement.sequence)
        elif finding not in statements.findings:
            statements.findings.append(finding)
    last = chain.last
    if statements.signed and last > statements.signed:
        which = f"entry {statements.signed + 1}" + (f" to {last}" if last > statements.signed + 1 else "")
        statements.findings.append(AuditFinding("unsigned", which, "it was appended without the key that signs"))


def ask_witnesses(
    chain: Chain, witnesses: Sequence[Witness], signed: int, earlier: list[AuditFinding], folder: Path
) -> Iterator[tuple[str, int, AuditFinding | None]]:
    """(name, last entry, finding or None) of the newest statement that each witness has, none of which may be ours."""
    places: dict[object, str] = {identity_of(folder): "the project's own checkpoints"}
    at, names = chain.witnesses[-1] if chain.witnesses else (0, [])
    for name in sorted({*names} - {witness.name for witness in witnesses}):
        detail = f"entry {at} names it, and the settings do not: it was not asked"
        yield name, 0, AuditFinding("removed", f"witness {name}", detail)
    for witness in witnesses:
        try:
            if (place := witness.identity()) is not None and place in places:
                detail = f"it leads to {places[place]}: whoever alters those alters it, so it witnesses nothing"
                yield witness.name, 0, AuditFinding("altered", f"witness {witness.name}", detail)
                continue
            places[place] = f"witness {witness.name}"
            statement = _newest_of(witness, chain, signed if witness.name in names else 0)
        except (RetrodictError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            detail = f"it did not answer: {reason}"
            yield witness.name, 0, AuditFinding("unreadable", f"witness {witness.name}", detail)
            continue
        finding = None if statement is None else check_statement(chain, statement)
        if finding is not None:
            detail = f"{finding.detail}, says witness {witness.name}"
            finding = None if finding in earlier else replace(finding, detail=detail)
        elif witness.name in names and (statement is None or statement.sequence < signed):
            upto = f"up to entry {statement.sequence}" if statement is not None else "on no entry"
            detail = f"it has statements {upto}, and entry {signed} is signed: it was cut, or could not be reached then"
            finding = AuditFinding("behind", f"witness {witness.name}", detail)
        yield witness.name, 0 if statement is None else statement.sequence, finding


def _newest_of(witness: Witness, chain: Chain, signed: int) -> Checkpoint | None:
    """Newest statement that a witness has; asked again where it may be about to be told."""
    keys = [str(key) for _, key in chain.keys]
    statement = witness.newest(keys)
    if signed and (statement is None or statement.sequence < signed):
        time.sleep(_TELLING_S)
        statement = witness.newest(keys)
    return statement


def check_keys(chain: Chain, public_key: str | None) -> Iterator[AuditFinding]:
    """Whose signatures count: each key endorsed by the one before it, the first one as an auditor knows it."""
    before = public_key
    for entry in chain.turns:
        where, facts = f"entry {entry.sequence}", entry.payload
        if entry.action == ACCEPT:
            detail = f"{entry.actor} went on from an end that was not the one signed last: {facts.get('reason')}"
            yield AuditFinding("accepted", where, detail)
            continue
        key = str(facts.get("public_key"))
        if entry.action == KEY_ACTIONS[0] and key != (public_key or key):
            yield AuditFinding("altered", where, "it names another key than the one given")
        elif entry.action != KEY_ACTIONS[0] and not is_endorsed(key, facts.get("endorsement"), before or ""):
            signed = facts.get("signed")
            detail = "another key signs from here on, and the one before it did not endorse it"
            detail += f"; that one signed up to entry {signed}" if isinstance(signed, int) else ""
            yield AuditFinding("renewed", where, detail)
        before = key
