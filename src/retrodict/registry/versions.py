"""Model versions and their approvals: numbered once, never changed, judged by gates and by somebody else."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text, func, select

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, short_hash, when
from retrodict.core.errors import InputError, NotFoundError, RefusedError, check_known, check_reason
from retrodict.core.identity import Ref
from retrodict.ledger import Transaction
from retrodict.registry.api_keys import read_keys
from retrodict.workspace import Workspace

__all__ = ["Approval", "ModelVersion", "approve", "describe_version", "get_version", "list_versions", "register",
           "runtime_grid"]  # fmt: skip

metadata = MetaData()

versions = Table(
    "model_versions",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("run", String(60), nullable=False, unique=True),
    Column("artifact", String(64), nullable=False),
    Column("code", String(64), nullable=False),
    Column("author", String(200), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("gates", Text, nullable=False),
    Column("metrics", Text, nullable=False),
)

approvals = Table(
    "model_approvals",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("approver", String(200), nullable=False),
    Column("granted", Integer, nullable=False),
    Column("reason", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Approval:
    """One judgement on a version; ``granted`` is False for a refusal. The latest one counts."""

    time: int
    approver: str
    granted: bool
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class ModelVersion(Shown):
    """One version of a model.

    Attributes
    ----------
    name, version : str, int
    run : str
        Id of the run that made it.
    artifact, code : str
        SHA-256 of the artifact's manifest and of the code it was trained with, both in the object store.
    author : str
        Who trained it; somebody else has to approve it.
    time : int
        When it was registered: microseconds since 1970-01-01 UTC.
    gates : list of dict
        Each gate with its status (pass, fail, not evaluable), value and reason.
    metrics : dict
        Metrics of the test rows.
    approvals : list of Approval
        Oldest first.
    facts : dict
        What the artifact says of itself, where it was asked (:func:`describe_version`): ``runtimes``, how answers are
        computed and what was measured; ``optimised``, the version it was made from, and how.
    """

    name: str
    version: int
    run: str
    artifact: str
    code: str
    author: str
    time: int
    gates: list[dict[str, Any]]
    metrics: dict[str, Any]
    approvals: list[Approval]
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def gates_passed(self) -> bool:
        """Whether every gate passed; a gate that could not be evaluated did not."""
        return all(gate["status"] == "pass" for gate in self.gates)

    @property
    def approved(self) -> bool:
        """Whether the latest judgement is an approval."""
        return bool(self.approvals) and self.approvals[-1].granted

    @property
    def failed_gates(self) -> dict[str, str]:
        """Gate to status, of the gates that did not pass."""
        return {gate["gate"]: gate["status"] for gate in self.gates if gate["status"] != "pass"}

    @property
    def next_training(self) -> str:
        """What another training must do otherwise than this one, of which a gate did not pass."""
        leaks = any("leaks" in gate for gate in self.failed_gates)
        more = "without the features that leak, or with accept={feature: 'why'} in the model" if leaks else ""
        return more or "with another recipe, or more rows"

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        judgements = [asdict(approval) | {"time": format_time(approval.time)} for approval in self.approvals]
        return {
            "model": self.ref,
            "run": f"run:{self.run}",
            "artifact": self.artifact,
            "author": self.author,
            "time": format_time(self.time),
            "gates": self.gates,
            "gates_passed": self.gates_passed,
            "approved": self.approved,
            "approvals": judgements,
            "metrics": self.metrics,
            **self.facts,
        }

    def blocks(self) -> Sequence[Block | None]:
        """Gates, metrics and judgements."""
        gates = [(gate["gate"], gate["status"], gate["reason"]) for gate in self.gates]
        judgements = [
            (when(a.time), a.approver, "approved" if a.granted else "rejected", a.reason) for a in self.approvals
        ]
        origin = self.facts.get("optimised")
        return [
            Facts({"model": self.ref, "run": f"run:{self.run}", "by": self.author, "registered": when(self.time),
                   "made from": origin and f"{origin['parent']}, by {origin['how']}",
                   "artifact": short_hash(self.artifact), "approved": self.approved}),
            Grid(("gate", "status", "measured"), gates) if gates else None,
            Grid(("test metric", "value>"), list(self.metrics.items())),
            runtime_grid(self.facts["runtimes"]) if "runtimes" in self.facts else None,
            Grid(("judged", "by", "verdict", "reason"), judgements) if judgements else None,
        ]  # fmt: skip


def register(
    workspace: Workspace,
    name: str,
    *,
    run: str,
    artifact: str,
    code: str,
    gates: list[dict[str, Any]],
    metrics: dict[str, Any],
    alongside: Callable[[Transaction], None] | None = None,
) -> ModelVersion:
    """Give a run's model the next version number; the same run twice gives the same version.

    Parameters
    ----------
    workspace : Workspace
        Its actor becomes the author.
    name : str
        Name of the model.
    run : str
        Id of the run that made it.
    artifact, code : str
        SHA-256 of the artifact's manifest and of the code, both in the object store.
    gates : list of dict
        Each with ``gate`` (its text) and ``status`` (pass, fail, not evaluable).
    metrics : dict
        Metrics of the test rows.
    alongside : callable, optional
        Called with the transaction first: what is recorded together with the version or not at all.

    Raises
    ------
    InputError
        If the run already made a version of another model, or of this one with another artifact.
    """
    workspace.records.ensure(metadata)
    with workspace.ledger.transaction() as tx:
        if alongside is not None:
            alongside(tx)
        existing = tx.connection.execute(select(versions).where(versions.c.run == run)).first()
        if existing is not None and (existing.name, existing.artifact) != (name, artifact):
            raise InputError("a run must make one version", where=f"run:{run}",
                             got=f"model:{existing.name}@{existing.version}",
                             remedy="Register the result of another run")  # fmt: skip
        if existing is not None:
            number = existing.version
        else:
            newest = select(func.max(versions.c.version)).where(versions.c.name == name)
            number = (tx.connection.execute(newest).scalar() or 0) + 1
            row = {
                "name": name,
                "version": number,
                "run": run,
                "artifact": artifact,
                "code": code,
                "author": workspace.actor,
                "time": workspace.clock.now(),
                "gates": json.dumps(gates),
                "metrics": json.dumps(metrics),
            }
            tx.insert(versions, row)
            facts = {
                "artifact": artifact,
                "gates": {gate["gate"]: gate["status"] for gate in gates},
                "objects": sorted({artifact, code}),
            }
            tx.append("model.register", f"model:{name}@{number}", facts, inputs=[(f"run:{run}", "trained by")])
    return get_version(workspace, f"{name}@{number}")


def get_version(workspace: Workspace, ref: str) -> ModelVersion:
    """Version by ``name@version`` (with or without ``model:`` before it); without ``@`` the newest one.

    Raises
    ------
    NotFoundError
        If there is none; the message names what there is.
    """
    parsed = Ref.parse(ref, kind="model")
    versions_of_model = list_versions(workspace, parsed.name)
    if not versions_of_model:
        names = {v.name for v in list_versions(workspace)}
        check_known(parsed.name, names, "a model of this name must be registered", where="registry", what="model")
    if parsed.version is None:
        return versions_of_model[-1]
    for version in versions_of_model:
        if str(version.version) == parsed.version:
            return version
    raise NotFoundError(
        "the version must be one of the model", where=f"model:{parsed.name}", got=parsed.version,
        remedy=f"Known versions: {versions_of_model[0].version} to {versions_of_model[-1].version}",
    )  # fmt: skip


def version_to_use(workspace: Workspace, ref: str) -> ModelVersion:
    """Version as :func:`get_version` gives it; of a name alone the newest approved one, else the newest not rejected.

    Raises
    ------
    RefusedError
        If all versions of a name were rejected.
    """
    version = get_version(workspace, ref)
    if Ref.parse(ref, kind="model").version is not None:
        return version
    of_model = list_versions(workspace, version.name)
    usable = [one for one in of_model if one.approved] or [one for one in of_model if not one.approvals]
    if not usable:
        raise RefusedError("a version of the model must be approved, or not rejected", where=f"model:{version.name}",
                           got="rejected ones", remedy=f"Train another, or name one, like {version.ref}")  # fmt: skip
    return usable[-1]


def describe_version(workspace: Workspace, ref: str) -> ModelVersion:
    """Version as :func:`get_version` gives it, with what its artifact says of itself.

    Raises
    ------
    NotFoundError, IntegrityError
        If there is no such version, or its artifact was removed or altered.
    """
    from retrodict.models.artifact import ModelArtifact  # loads NumPy

    version = get_version(workspace, ref)
    metadata = ModelArtifact.metadata_of(workspace.objects, version.artifact)
    return replace(version, facts={name: metadata[name] for name in ("runtimes", "optimised") if name in metadata})


def runtime_grid(facts: Mapping[str, Any]) -> Grid:
    """Table of the runtimes of a version, as its artifact has them."""
    rows = []
    for one in facts["measured"]:
        apart = "unlike" if one["distance"] is None else f"{one['distance']:.2g} apart"
        answers = "exact" if one["exact_row"] and one["exact_table"] else apart
        uses = " and ".join(word for word in ("row", "table") if facts[word] == one["name"])
        rows.append((one["name"], *one["us"], answers, uses))
    sizes = (f"{size:,} row{'s' * (size > 1)}, µs>" for size in facts["rows"])
    return Grid(("runtime", *sizes, "answers", "chosen for a"), rows)


def list_versions(workspace: Workspace, name: str | None = None) -> list[ModelVersion]:
    """Versions of one model or of all, by name and number."""
    workspace.records.ensure(metadata)
    judgements = workspace.ledger.read_vouched(approvals, "model:")
    rows = [row for row in workspace.ledger.read_vouched(versions, "model:") if name is None or row.name == name]
    by_version: dict[tuple[str, int], list[Approval]] = {}
    for row in sorted(judgements, key=lambda row: row.position):
        approval = Approval(row.time, row.approver, bool(row.granted), row.reason)
        by_version.setdefault((row.name, row.version), []).append(approval)
    rows.sort(key=lambda row: (row.name, row.version))
    return [_read(row._asdict(), by_version.get((row.name, row.version), [])) for row in rows]


def _read(row: Mapping[str, Any], judgements: list[Approval]) -> ModelVersion:
    texts = {name: json.loads(row[name]) for name in ("gates", "metrics")}
    return ModelVersion(**{**row, **texts}, approvals=judgements)


# Small letters of other scripts that are drawn like Latin ones (of Unicode's confusables those of the usual fonts).
_DRAWN_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u043a\u043c\u0442"
    "\u03b1\u03bf\u03c1\u03bd\u03c5\u03b9\u03ba\u03c7\u03c4\u03b5\u0251\u0131\u0261",
    "aeopcyxijshdqwkmtaopvuikxteaig",
)


def _skeleton(name: str) -> str:
    """What is left of a name without all that an eye may miss: case, accents, signs, scripts."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold()).translate(_DRAWN_ALIKE)
    return "".join(letter for letter in plain if letter.isalnum()) or name


def _judges(workspace: Workspace) -> set[str]:
    """Names that the actor has: of a caller of a server (``key:NAME``, ``jwt:NAME``) also that without the prefix.

    Who issues a key has had it in hand: it speaks for both.
    """
    actor, now = workspace.actor, workspace.clock.now()
    keys = read_keys(workspace).values() if actor.startswith("key:") else ()
    issuers = {key.issued_by for key in keys if f"key:{key.name}" == actor and key.expires > now}
    return {actor, actor.partition(":")[2] or actor, *issuers}


def approve(workspace: Workspace, ref: str, *, reason: str, granted: bool = True) -> ModelVersion:
    """Record a judgement on a version, by somebody else than its author.

    Parameters
    ----------
    workspace : Workspace
        Its actor is the approver.
    ref : str
        ``name@version``.
    reason : str
        Why; not empty.
    granted : bool, default True
        False records a refusal, which also takes back an earlier approval.

    Raises
    ------
    RefusedError
        If the approver is the author, has a name that looks like the author's, acts by a key that the author has
        issued, or a gate did not pass.
    """
    version = get_version(workspace, ref)
    where = f"model:{version.ref}"
    check_reason(reason, "an approval must have a reason", where=where)
    if granted and _skeleton(version.author) in map(_skeleton, _judges(workspace)):
        raise RefusedError("a version must be approved by somebody else than its author", where=where,
                           got=workspace.actor,
                           remedy="Let a colleague approve it; RETRODICT_ACTOR or --actor says who acts")  # fmt: skip
    if granted and version.failed_gates:
        raise RefusedError("every gate must have passed", where=where, got=version.failed_gates,
                           remedy=f"Train {version.next_training}")  # fmt: skip
    # Leaks that the definition accepts: the entry says what was known to whoever judged.
    accepted = {gate["gate"]: gate["reason"] for gate in version.gates if gate["gate"].startswith("accept(")}
    with workspace.ledger.transaction() as tx:
        key = (approvals.c.name == version.name) & (approvals.c.version == version.version)
        position = tx.connection.execute(select(func.count()).select_from(approvals).where(key)).scalar_one()
        row = {
            "name": version.name,
            "version": version.version,
            "position": position,
            "time": workspace.clock.now(),
            "approver": workspace.actor,
            "granted": int(granted),
            "reason": reason,
        }
        tx.insert(approvals, row)
        tx.append(
            "model.approve" if granted else "model.reject",
            where,
            {"reason": reason, "artifact": version.artifact, **({"accepted": accepted} if accepted else {})},
            inputs=[(f"run:{version.run}", "evidence")],
        )
    return get_version(workspace, version.ref)
