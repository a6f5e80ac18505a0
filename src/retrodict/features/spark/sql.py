"""Compiles a view to SQL: two clocks, each event once, windows, and the exact totals of every channel.

The text does what must be done where the data is: it reads events as ``features.facts.events`` does, joins each row
of the spine to what it could have known, and merges lifted events to totals, one row per row of the spine. What a total
means is then said by the table of aggregates (``features.monoids``), so there is no second finish to keep equal.

Sums of doubles are exact. Each double is written as a whole number times a power of two that its *bucket* (eight
binades) fixes; whole numbers of one bucket add up without error as decimals. Which buckets occur is found by a first
scan, :meth:`ViewQuery.probe`. ``SUM`` of doubles was rejected (it depends on the order of rows), decimals of fixed
scale too (they round each value), and collecting the values (a window's whole content per row of the spine is kept).

Cost: the join meets every row of the spine with every event of its key inside the longest look-back; nothing of it is
kept but the totals.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.expressions import parse
from retrodict.core.kinds import expression_kind, kind_of
from retrodict.features.facts.events import FOREVER, TIMELESS
from retrodict.features.monoids import Channel
from retrodict.features.plan import ViewPlan
from retrodict.features.spark.dialects import Dialect
from retrodict.features.spark.lifts import INFINITY, Lift, lift_stages
from retrodict.features.windows import Window

__all__ = ["POSITION", "ROW", "ViewQuery", "canonical_key", "total_name"]

ROW = "__row"
"""Column of the spine's relation: which row of the spine it is."""
POSITION = "__position"
"""Column of the source's relation: place of the row in the source, which breaks ties without a sequence."""


def total_name(window: int, channel: int, place: int = 0) -> str:
    """Column of the totals: of a channel over a window; of sums of doubles one per bucket, by its place."""
    return f"w{window}_c{channel}_{place}"


@dataclass(frozen=True)
class _Read:
    """What a relation says: SQL of its inputs by the text of the definition, and their kinds."""

    inputs: dict[str, str]
    kinds: dict[str, str]


class ViewQuery:
    """One view as SQL over a relation of its source and a relation of the spine.

    Parameters
    ----------
    plan : ViewPlan
        The view.
    source, spine : pyarrow.Schema
        Columns of both relations, without :data:`POSITION` and :data:`ROW`, which they have as well.
    at : str
        Time column of the spine.
    dialect : Dialect
        Who will run it.
    relations : tuple of str
        Quoted names of the relations of source and spine.

    Raises
    ------
    DefinitionError
        If a feature needs the events themselves and not their totals.
    InputError
        If the request's own value is of another type than the source's where the smallest or greatest is asked.
    """

    def __init__(
        self,
        plan: ViewPlan,
        source: pa.Schema,
        spine: pa.Schema,
        at: str,
        dialect: Dialect,
        relations: tuple[str, str],
    ) -> None:
        self.plan, self._source, self._spine, self._at, self._dialect = plan, source, spine, at, dialect
        self._events, self._asks = relations
        _check_compiled(plan)
        truths = [text for c in plan.channels for text in (c.where, c.value if c.lift == "true" else None)]
        self._truths = list(dict.fromkeys(text for text in truths if text is not None))
        numbers = [c.value for c in plan.channels if c.lift not in {"one", "true"}]
        self._numbers = list(dict.fromkeys(text for text in numbers if text is not None))
        self._read = self._inputs(source, {*self._truths, *self._numbers})
        self._own = self._inputs(spine, self._own_texts())
        self.floating = tuple(i for i, channel in enumerate(plan.channels) if self._floating(channel))
        self.wanted = tuple(dict.fromkeys((o.window, i) for o in plan.outputs if o.window >= 0 for i in o.parts))

    # -- what it reads -----------------------------------------------------------------------------------------------

    def _own_texts(self) -> set[str]:
        """Texts that the request's own event must give."""
        plan = self.plan
        parts = {i for o in plan.outputs if o.window >= 0 and plan.windows[o.window].include_current for i in o.parts}
        return {text for i in parts for text in (plan.channels[i].value, plan.channels[i].where) if text is not None}

    def _inputs(self, schema: pa.Schema, texts: Collection[str]) -> _Read:
        kinds = {field.name: kind_of(field.type) for field in schema}
        inputs, found = {}, {}
        for text in sorted(texts):
            if text in self.plan.expressions:
                inputs[text], found[text] = self._condition(text, kinds), "bool"
            else:
                inputs[text], found[text] = self._number(text, kinds[text]), kinds[text]
        return _Read(inputs, found)

    def _condition(self, text: str, kinds: Mapping[str, str]) -> str:
        expression = self.plan.expressions.get(text) or parse(text)
        known = {column: expression_kind(kinds[column]) for column in expression.columns}
        return f"CAST({expression.to_sql(self._dialect.name, kinds=known)} AS BOOLEAN)"

    def _number(self, name: str, kind: str) -> str:
        return _number(name, kind, self._dialect)

    def _floating(self, channel: Channel) -> bool:
        """Whether the channel sums doubles."""
        if channel.value is None or channel.lift in {"one", "present", "true"}:
            return False
        own = self._own.kinds.get(channel.value)
        kinds = [kind for kind in (self._read.kinds[channel.value], own) if kind is not None]
        if channel.monoid != "sum":
            if len({kind == "float" for kind in kinds}) > 1:
                raise InputError(
                    "the request's own value has the type of the source's column",
                    where=self.plan.where,
                    got=own,
                    remedy="Cast the spine's column to the type of the source's",
                )
            return False
        return channel.lift != "value" or "float" in kinds

    def _sequence(self) -> str:
        name = self.plan.source.sequence
        if name is None:
            return self._dialect.quote(POSITION)
        kind = kind_of(self._source.field(name).type)
        return self._dialect.quote(name) if kind == "text" else self._number(name, kind)

    def _clocks(self) -> tuple[str, str]:
        source = self.plan.source
        if source.timeless:
            return f"CAST({TIMELESS} AS BIGINT)", f"CAST({TIMELESS} AS BIGINT)"
        event = self._moment(self._source, source.event_time or source.known_at or "")
        if source.known_at is None:
            return event, f"{event} + {source.delay_us}"
        return event, self._moment(self._source, source.known_at)

    def _moment(self, schema: pa.Schema, name: str) -> str:
        return self._number(name, kind_of(schema.field(name).type))

    # -- the text ----------------------------------------------------------------------------------------------------

    def probe(self) -> str:
        """Text of the first scan: one row with the buckets of each sum of doubles and the nulls that may not be.

        Columns: ``no_time`` (rows of the spine without a time), ``no_sequence`` (events without one), and ``b_<i>``, a
        list, for each channel of :attr:`floating`.
        """
        lists = ", ".join(f"{self._dialect.distinct(f'b_{i}')} AS b_{i}" for i in self.floating)
        buckets = ", ".join(f"b_{i}" for i in self.floating)
        own = f" UNION ALL SELECT {buckets} FROM own" if self.plan.needs_current else ""
        both = f"SELECT {buckets} FROM facts{own}"
        nulls = (
            "(SELECT COUNT(*) FROM asks WHERE at_us IS NULL) AS no_time, "
            "(SELECT COUNT(*) FROM told WHERE seq IS NULL) AS no_sequence"
        )
        last = f"SELECT {nulls}, {lists} FROM ({both}) AS each_lift" if self.floating else f"SELECT {nulls}"
        return self._with([*self._facts(None), *self._requests(None)], last)

    def totals(self, buckets: Mapping[int, Sequence[int]]) -> str:
        """Text of the totals: one row per row of the spine that has any, with :data:`ROW`.

        Columns: :func:`total_name` for each of :attr:`wanted` and bucket (null or 0 where there is nothing), ``stray``
        (numbers outside the buckets: the source has changed since), and the full name of each latest value.

        Parameters
        ----------
        buckets : mapping of int to sequence of int
            Of each channel of :attr:`floating`, sorted.
        """
        return self._with(
            [
                *self._facts(buckets),
                *self._requests(buckets),
                ("seen", self._seen()),
                ("merged", self._merged(buckets)),
            ],
            self._last(buckets),
        )

    def _with(self, stages: Sequence[tuple[str, str]], last: str) -> str:
        return "WITH " + ",\n".join(f"{name} AS ({text})" for name, text in stages) + f"\n{last}"

    def _facts(self, buckets: Mapping[int, Sequence[int]] | None) -> list[tuple[str, str]]:
        """Events of the source, each once, lifted."""
        plan, source, quote = self.plan, self.plan.source, self._dialect.quote
        kinds = {field.name: kind_of(field.type) for field in self._source}
        event, known = self._clocks()
        alive = [] if source.where is None else [self._condition(source.where, kinds)]
        if source.deleted is not None:
            alive.append(f"NOT COALESCE({self._condition(source.deleted, kinds)}, FALSE)")
        columns = {f"key_{i}": canonical_key(self._source, key, self._dialect) for i, key in enumerate(plan.keys)}
        columns |= {"event_us": event, "known_us": known, "seq": self._sequence(), "pos": quote(POSITION)}
        columns["alive"] = " AND ".join(f"COALESCE({part}, FALSE)" for part in alive) or "TRUE"
        columns |= self._given(self._read)
        columns |= {f"raw_{i}": self._raw(name) for i, name in enumerate(plan.latest)}
        needed = [f"key_{i} IS NOT NULL" for i in range(len(plan.keys))] + [
            "event_us IS NOT NULL",
            "known_us IS NOT NULL",
        ]
        needed += [] if source.revised else ["alive"]
        return [
            ("read", f"SELECT {_listed(columns)} FROM {self._events}"),
            ("told", f"SELECT * FROM read WHERE {' AND '.join(needed)}"),
            ("once", self._once()),
            *lift_stages(self._lifts(), self.floating, buckets, ("once", "facts")),
        ]

    def _once(self) -> str:
        keys = ", ".join(f"key_{i}" for i in range(len(self.plan.keys)))
        if self.plan.source.revised:
            following = f"LEAD(known_us) OVER (PARTITION BY {keys}, seq ORDER BY known_us, pos)"
            until = f"SELECT *, COALESCE({following}, {FOREVER}) AS until_us FROM told"
            return f"SELECT * FROM ({until}) AS numbered WHERE alive AND until_us > GREATEST(event_us, known_us)"
        if self.plan.source.sequence is None:
            return "SELECT * FROM told"
        place = f"ROW_NUMBER() OVER (PARTITION BY {keys}, event_us, seq ORDER BY known_us, pos)"
        return f"SELECT * FROM (SELECT *, {place} AS delivery FROM told) AS numbered WHERE delivery = 1"

    def _lifts(self) -> list[Lift]:
        """Channels with the columns of their value and of their condition."""
        numbers = {text: f"in_{i}" for i, text in enumerate(self._numbers)}
        truths = {text: f"is_{i}" for i, text in enumerate(self._truths)}
        return [
            Lift(c.lift, (truths if c.lift == "true" else numbers).get(c.value or ""), truths.get(c.where or ""))
            for c in self.plan.channels
        ]

    def _given(self, read: _Read) -> dict[str, str]:
        """Inputs of the lifts, of the same types wherever they are read."""
        columns = {f"is_{i}": read.inputs.get(text, "CAST(NULL AS BOOLEAN)") for i, text in enumerate(self._truths)}
        for i, text in enumerate(self._numbers):
            floats = "float" in {self._read.kinds[text], self._own.kinds.get(text)}
            columns[f"in_{i}"] = f"CAST({read.inputs.get(text, 'NULL')} AS {'DOUBLE' if floats else 'BIGINT'})"
        return columns

    def _raw(self, name: str) -> str:
        kind = kind_of(self._source.field(name).type)
        return self._number(name, kind) if kind == "float" else self._dialect.quote(name)

    def _requests(self, buckets: Mapping[int, Sequence[int]] | None) -> list[tuple[str, str]]:
        """Rows of the spine with the edges of their windows; and their own events, lifted, where a window asks."""
        plan = self.plan
        columns = {"at_row": self._dialect.quote(ROW), "at_us": self._moment(self._spine, self._at)}
        columns |= {
            f"ask_{i}": canonical_key(self._spine, key, self._dialect) for i, key in enumerate(plan.request_keys)
        }
        stages = [("asks", f"SELECT {_listed(columns)} FROM {self._asks}")]
        if plan.needs_current:
            stages.append(("asked", f"SELECT {_listed(columns | self._given(self._own))} FROM {self._asks}"))
            stages += lift_stages(self._lifts(), self.floating, buckets, ("asked", "own"))
        return stages

    def _seen(self) -> str:
        """Pairs of a row of the spine and an event that it could have known, the lifted event marked by window."""
        plan = self.plan
        lifted = [f"f_{i}" for i in range(len(plan.channels))] + [f"{kind}_{i}" for i in self.floating for kind in "bm"]
        order = ["event_us", "known_us", "seq", *(f"raw_{i}" for i in range(len(plan.latest)))]
        inside = [f"{_inside(window)} AS in_w{i}" for i, window in enumerate(plan.windows)]
        match = [f"facts.key_{i} = asks.ask_{i}" for i in range(len(plan.keys))]
        match += ["facts.event_us < asks.at_us", "facts.known_us < asks.at_us"]
        match += ["asks.at_us <= facts.until_us"] if plan.source.revised else []
        if not (plan.unbounded or plan.lifetime):
            match.append(f"facts.event_us >= asks.at_us - {plan.lookback_us}")
        columns = ["at_row", "at_us", "FALSE AS own_event", *inside, *lifted, *(order if plan.latest else [])]
        text = f"SELECT {', '.join(columns)} FROM asks JOIN facts ON {' AND '.join(match)}"
        if not plan.needs_current:
            return text
        current = [f"{str(window.include_current).upper()} AS in_w{i}" for i, window in enumerate(plan.windows)]
        nothing = [f"NULL AS {name}" for name in order] if plan.latest else []
        own = ["at_row", "at_us", "TRUE AS own_event", *current, *lifted, *nothing]
        return f"{text}\nUNION ALL SELECT {', '.join(own)} FROM own"

    def _merged(self, buckets: Mapping[int, Sequence[int]]) -> str:
        columns = {}
        for window, i in self.wanted:
            monoid, marked = self.plan.channels[i].monoid, f"in_w{window}"
            if i in self.floating:
                for place, bucket in enumerate(buckets[i]):
                    digits = f"CASE WHEN {marked} AND b_{i} = {bucket} THEN CAST(m_{i} AS DECIMAL(20, 0)) END"
                    columns[total_name(window, i, place)] = f"CAST(SUM({digits}) AS DECIMAL(38, 0))"
            elif monoid == "sum":
                whole = f"SUM(CASE WHEN {marked} THEN CAST(f_{i} AS DECIMAL(20, 0)) END)"
                columns[total_name(window, i)] = f"CAST({whole} AS DECIMAL(38, 0))"
            else:
                columns[total_name(window, i)] = f"{monoid.upper()}(CASE WHEN {marked} THEN f_{i} END)"
        stray = [f"SUM(CASE WHEN b_{i} IS NOT NULL AND m_{i} IS NULL THEN 1 ELSE 0 END)" for i in self.floating]
        columns["stray"] = f"CAST({' + '.join(stray) or '0'} AS BIGINT)"
        if self.plan.latest:
            raws = {f"raw_{i}": f"raw_{i}" for i in range(len(self.plan.latest))}
            value = self._dialect.struct({"event_us": "event_us", **raws})
            order = self._dialect.struct({"e": "event_us", "k": "known_us", "s": "seq"})
            columns["newest"] = self._dialect.newest(value, f"CASE WHEN own_event THEN NULL ELSE {order} END")
        return f"SELECT at_row, at_us, {_listed(columns)} FROM seen GROUP BY at_row, at_us"

    def _last(self, buckets: Mapping[int, Sequence[int]]) -> str:
        plan, names = self.plan, ["stray"]
        for window, i in self.wanted:
            names += [total_name(window, i, place) for place in range(len(buckets.get(i, [0])))]
        for output in plan.outputs:
            if output.op == "latest":
                value = f"newest.raw_{output.parts[0]}"
                if output.max_age is not None:
                    value = f"CASE WHEN at_us - newest.event_us <= {output.max_age} THEN {value} END"
                names.append(f"{value} AS {self._dialect.quote(output.column)}")
        return f"SELECT at_row AS {self._dialect.quote(ROW)}, {', '.join(names)} FROM merged"


def canonical_key(schema: pa.Schema, name: str, dialect: Dialect) -> str:
    """SQL of a key column in the form of its kind: whole numbers, times and days as BIGINT, the others as they are."""
    quoted, kind = dialect.quote(name), kind_of(schema.field(name).type)
    if kind == "date":
        return dialect.days(quoted)
    return _number(name, kind, dialect) if kind in {"time", "int", "null"} else quoted


def _number(name: str, kind: str, dialect: Dialect) -> str:
    """SQL of a column of numbers, booleans or times as BIGINT or DOUBLE; what is no number is null."""
    quoted = dialect.quote(name)
    if kind == "null":
        return "CAST(NULL AS BIGINT)"
    if kind == "float":
        number = f"CAST({quoted} AS DOUBLE)"
        return f"CASE WHEN {number} = 0e0 THEN 0e0 WHEN abs({number}) < {INFINITY} THEN {number} END"
    return dialect.micros(quoted) if kind == "time" else f"CAST({quoted} AS BIGINT)"


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{sql} AS {name}" for name, sql in columns.items())


def _inside(window: Window) -> str:
    """Whether an event that could have been known is in a window."""
    parts = [] if window.lifetime else [f"event_us >= {_snapped(window, window.offset_us + window.length_us)}"]
    if window.offset is not None:
        parts.append(f"event_us < {_snapped(window, window.offset_us)}")
    return f"({' AND '.join(parts) or 'TRUE'})"


def _snapped(window: Window, before: int) -> str:
    edge = f"(at_us - {before})"
    # Down to a multiple of the hop; the engines' remainder has the sign of what is divided.
    hop = window.hop_us
    return edge if not hop else f"({edge} - (({edge} % {hop}) + {hop}) % {hop})"


def _check_compiled(plan: ViewPlan) -> None:
    for output in plan.outputs:
        if output.bag:
            raise DefinitionError(
                "the SQL engine merges totals; this feature needs the events of its window themselves",
                where=f"{plan.where}, feature {output.column!r}, engine 'sql'",
                got=output.op,
                remedy="Use engine='kernel', which computes every feature",
            )
