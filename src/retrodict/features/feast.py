"""Definitions of a Feast repository, as a person would write them here, from what ``feast registry-dump`` prints.

Feast itself has resolved the repository then. Reading its Python by syntax was rejected: whatever a repository computes
(views in a loop, helper functions) would be missed without a word. Nothing of the repository is executed, and every
field of the dump that has no counterpart is named.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeAlias

from retrodict.core.display import Block, Shown, Verbatim, plain
from retrodict.core.durations import SECOND, format_duration
from retrodict.core.errors import InputError, RetrodictError
from retrodict.data.definitions import Table
from retrodict.data.interchange.imported import Unmapped
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureService, FeatureView, ViewFeature, latest

__all__ = ["ImportedFeatures", "read_registry"]

Spec: TypeAlias = Mapping[str, Any]

_NOBODY = "__dummy"  # Feast's entity of views that have none
_TYPES = {
    "STRING": "string", "INT32": "int", "INT64": "int", "FLOAT": "float", "DOUBLE": "float", "BOOL": "bool",
    "UNIX_TIMESTAMP": "time",
}  # fmt: skip
_READ = ("project", "entities", "featureViews", "featureServices", "dataSources")
_LOSSES = {
    "onDemandFeatureViews": "it is code: write it as a @derived function",
    "streamFeatureViews": "it is code: compute its columns before they are ingested, or write aggregates",
    "labelViews": "write a Label or an Outcome of its table",
}
_NAMES = {
    "Table": Table, "Source": Source, "Entity": Entity, "FeatureView": FeatureView, "FeatureService": FeatureService,
    "latest": latest, "ViewFeature": ViewFeature,
}  # fmt: skip
_ENTRIES = [{"spec": {"name": str}}]
_FIELDS = [{"name": str, "valueType": str}]
_MAPPING = {"*": str}
_FACTS = {"name": str, "description": str, "owner": str, "tags": _MAPPING}
_SHAPE: dict[str, Any] = {
    **dict.fromkeys(_LOSSES, _ENTRIES),
    "entities": [{"spec": {"name": str, "joinKey": str}}],
    "dataSources": [{"name": str, "type": str, "timestampField": str, "createdTimestampColumn": str,
                     "description": str, "fieldMapping": _MAPPING, "batchSource": {"name": str}, "*Options": {}}],
    "featureViews": [{"spec": {
        **_FACTS, "entities": [str], "entityColumns": _FIELDS, "features": _FIELDS,
        "batchSource": {"name": str, "fieldMapping": _MAPPING}, "ttl": re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?s")}}],
    "featureServices": [{"spec": {**_FACTS, "features": [
        {"featureViewName": str, "featureViewNameAlias": str, "featureColumns": [{"name": str}],
         "joinKeyMap": _MAPPING}]}}],
}  # fmt: skip
"""What is read of a dump: the form of values, by patterns of their names. Other fields may have any form."""

_FORMS: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
_REMEDY = "Run `feast apply` and `feast registry-dump > registry.json` in the repository, and name that file"
_REQUIRED = {"spec", "name", "type", "joinKey", "valueType", "featureViewName"}


@dataclass(frozen=True, slots=True, repr=False)
class ImportedFeatures(Shown):
    """Definitions of a Feast repository.

    Attributes
    ----------
    definition : str
        A definitions module that loads.
    defined : Mapping of str to list of str
        Names by kind: tables, sources, entities, views, services.
    unmapped : tuple of Unmapped
        What has no counterpart, or one that leaves something out, and why.

    Examples
    --------
    >>> project.features.import_feast("registry.json").unmapped  # doctest: +SKIP
    """

    definition: str
    defined: Mapping[str, list[str]]
    unmapped: tuple[Unmapped, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {"defined": dict(self.defined), "unmapped": plain(self.unmapped), "definition": self.definition}

    def blocks(self) -> Sequence[Block | None]:
        """The module."""
        return [Verbatim(self.definition)]

    def remarks(self) -> list[str]:
        """What has no counterpart and why, one line each, below a line of counts."""
        partly = sum(entry.partly for entry in self.unmapped)
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in self.defined.items())
        reasons = [f"{'in part' if e.partly else 'not mapped'}: {e.name}: {e.reason}" for e in self.unmapped]
        return [f"{counts}; {len(self.unmapped) - partly} not mapped, {partly} only in part", *reasons]


def read_registry(path: Path) -> ImportedFeatures:
    """Read what ``feast registry-dump`` printed.

    Parameters
    ----------
    path : path
        JSON.

    Raises
    ------
    InputError
        If the file cannot be read or is something else.
    """
    try:
        dump = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(dump, ensure_ascii=False, allow_nan=False).encode()  # neither half characters nor infinities
    except (OSError, ValueError, RecursionError) as error:  # a ValueError of JSON quotes what it read
        got = type(error).__name__
        raise InputError(
            "the registry must be JSON of whole characters and finite numbers", where=str(path), got=got, remedy=_REMEDY
        ) from None
    if not isinstance(dump, dict) or not dump.keys() & {"featureViews", "entities"}:
        raise InputError(
            "the file must be a dump of Feast's registry", where=str(path), got="another form", remedy=_REMEDY
        )
    _check(dump, _SHAPE, str(path))
    return _Reader().read(dump)


def _check(value: Any, shape: Any, where: str) -> None:
    """Refuse a value that has another form than what is read of it."""
    if isinstance(shape, re.Pattern):
        fits = isinstance(value, str) and shape.fullmatch(value) is not None
        rule = "a time to live must be seconds as text, like '86400s'"
    else:
        kind = shape if shape is str else type(shape)
        fits = isinstance(value, kind)
        rule = f"the value must be {_FORMS[kind]}"
    if fits and isinstance(shape, dict):
        absent = sorted((shape.keys() & _REQUIRED) - value.keys())
        fits, rule = not absent, f"the object must have {', '.join(absent)}"
    if not fits:
        got = value[:40] if isinstance(shape, re.Pattern) and isinstance(value, str) else type(value).__name__
        raise InputError(rule, where=where, got=got, remedy=_REMEDY)
    if isinstance(shape, list):
        for number, entry in enumerate(value):
            _check(entry, shape[0], f"{where}[{number}]")
    if isinstance(shape, dict):
        for key, entry in value.items():
            for name in (name for name in shape if fnmatchcase(key, name)):
                _check(entry, shape[name], f"{where}, {key}")


class _Reader:
    """Definitions one after the other, each executed as it is written: what is refused here is named."""

    def __init__(self) -> None:
        self._scope: dict[str, Any] = dict(_NAMES)
        self._lines: list[str] = []
        self._unmapped: list[Unmapped] = []
        self._defined: dict[str, list[str]] = {k: [] for k in ("tables", "sources", "entities", "views", "services")}
        self._variables: dict[tuple[str, str], str] = {}  # of a kind and Feast's name
        self._features: dict[
            str, dict[str, str]
        ] = {}  # by Feast's view: its features that are defined, by Feast's name

    def read(self, dump: Spec) -> ImportedFeatures:
        views = [view["spec"] for view in dump.get("featureViews", [])]
        for entity in (e["spec"] for e in dump.get("entities", []) if e["spec"]["name"] != _NOBODY):
            self._entity(entity["name"], [entity["joinKey"]])
            self._leftovers(f"entity {entity['name']}", entity, {"name", "joinKey", "valueType"})
        columns = self._columns(views)
        for source in dump.get("dataSources", []):
            self._source(source, columns)
        for view in views:
            self._view(view)
        for service in dump.get("featureServices", []):
            self._service(service["spec"])
        for section in sorted(dump.keys() - set(_READ)):
            for name in [entry["spec"]["name"] for entry in dump[section]] if section in _LOSSES else [""]:
                reason = _LOSSES.get(section, "it belongs to Feast's own stores and servers")
                self._unmapped.append(Unmapped(f"{section} {name}".strip(), reason))
        used = sorted(name for name in _NAMES if any(f"{name}(" in line for line in self._lines))
        imports = [f"from retrodict import {', '.join(name for name in used if name != 'ViewFeature')}"]
        imports += ["from retrodict.features.definitions import ViewFeature"] if "ViewFeature" in used else []
        text = "\n".join([*imports, "", *self._lines]) + "\n"
        return ImportedFeatures(text, self._defined, tuple(sorted(self._unmapped, key=lambda entry: entry.partly)))

    # what a kind of object becomes ------------------------------------------------------------------------------------

    def _entity(self, name: str, keys: Sequence[str]) -> str | None:
        return self._define(
            "entities", name, lambda slug: f"Entity({_text(slug)}, keys={_texts(keys)})", f"entity {name}"
        )

    def _columns(self, views: Iterable[Spec]) -> dict[str, dict[str, str]]:
        """Types by source and column of its table, as views declare them, without those of no kind here."""
        columns: dict[str, dict[str, str]] = {}
        for view in views:
            source = view.get("batchSource", {})
            stored = {feature: column for column, feature in source.get("fieldMapping", {}).items()}
            typed = columns.setdefault(source.get("name", ""), {})
            for field in [*view.get("entityColumns", []), *view.get("features", [])]:
                if field["valueType"] in _TYPES and field["name"] != f"{_NOBODY}_id":
                    typed.setdefault(stored.get(field["name"], field["name"]), _TYPES[field["valueType"]])
        return columns

    def _source(self, source: Spec, columns: Mapping[str, Mapping[str, str]]) -> None:
        name, kind = source["name"], source["type"]
        what = f"source {name}"
        if "batchSource" in source and kind != "BATCH_FILE":
            batch = source["batchSource"]["name"]
            self._partly(what, f"push events to the source {batch}, which needs sequence= with the id of an event")
            return
        if not kind.startswith(("BATCH", "CUSTOM")):
            self._unmapped.append(Unmapped(what, f"a {kind} has no table: name what it brings as request columns"))
            return
        options: Spec = next((value for key, value in source.items() if key.endswith("Options")), {})
        place = next(filter(None, (options.get(key) for key in ("uri", "table", "query"))), None)
        fields = (("event_time", "timestampField"), ("known_at", "createdTimestampColumn"))
        clocks: dict[str, str] = {clock: source[field] for clock, field in fields if source.get(field)}
        types = {**columns.get(name, {}), **dict.fromkeys(clocks.values(), "time")}
        if name not in columns:
            self._partly(what, "no feature view reads it: its columns are not known")
        body = "".join(f"    {_text(column)}: {_text(type_)},\n" for column, type_ in types.items())
        described = f", description={_text(source['description'])}" if source.get("description") else ""
        note = f"# from Feast: {json.dumps(place)}" if place else None
        table = self._define(
            "tables", name, lambda slug: f"Table({_text(slug)}, columns={{\n{body}}}{described})", what, note=note
        )
        arguments = "".join(f", {clock}={_text(column)}" for clock, column in clocks.items())
        if table is not None:
            self._define("sources", name, lambda slug: f"Source({_text(slug)}, {table}{arguments})", what)
        if "known_at" in clocks:
            self._partly(what, f"a row counts from its {clocks['known_at']} on, which Feast takes for ties alone; "
                               "remove known_at= if rows were written long after the fact")  # fmt: skip
        handled = {"name", "type", "timestampField", "createdTimestampColumn", "fieldMapping", "description", "meta",
                   "dataSourceClassType", "project", *(key for key in source if key.endswith("Options"))}  # fmt: skip
        self._leftovers(what, source, handled)
        self._leftovers(what, options, {"uri", "table", "query"})

    def _view(self, view: Spec) -> None:
        name = view["name"]
        what = f"view {name}"
        source = view.get("batchSource", {})
        sources = self._variables.get(("sources", source.get("name", "")))
        if sources is None:
            self._unmapped.append(Unmapped(what, "its source is not mapped"))
            return
        stored = {feature: column for column, feature in source.get("fieldMapping", {}).items()}
        age = round(float(view.get("ttl", "0s").removesuffix("s")) * SECOND)
        max_age = f", max_age={_text(format_duration(age))}" if age else ""
        names: dict[str, str] = {}
        features = []
        for field in view.get("features", []):
            if field["valueType"] not in _TYPES:
                reason = f"a feature is no {field['valueType']}: a latest value is a number, text, boolean or time"
                self._unmapped.append(Unmapped(f"feature {name}.{field['name']}", reason))
                continue
            slug = names[field["name"]] = _slug(field["name"])
            column = stored.get(field["name"], field["name"])
            features.append(f"    latest({_text(column)}{max_age}, name={_text(slug)}),")
            self._renamed(f"feature {name}.{field['name']}", field["name"], slug)
            self._leftovers(f"feature {name}.{field['name']}", field, {"name", "valueType"})
        entity = self._entity_of(view)
        if not features or entity is None:
            self._unmapped.append(Unmapped(what, "none of its features is mapped" if entity else "its entity is not"))
            return
        body = "\n".join(features)
        facts = _facts(view)
        written = self._define(
            "views", name, lambda slug: f"FeatureView({_text(slug)}, {entity}, {sources}, [\n{body}\n]{facts})", what
        )
        if written is not None:
            self._features[name] = names
        current = {"version"} if view.get("version") == "latest" else set[str]()
        self._leftovers(what, view, current | {
            "name", "entities", "entityColumns", "features", "batchSource", "streamSource", "ttl", "description",
            "owner", "tags", "online", "offline", "project"})  # fmt: skip
        if not view.get("online"):
            self._partly(what, "it is not online in Feast: here a service or model that reads it has online state")

    def _entity_of(self, view: Spec) -> str | None:
        """Variable of a view's entity: one of several keys where Feast has several entities."""
        entities = [name for name in view.get("entities", []) if name != _NOBODY]
        variables = [self._variables.get(("entities", name)) for name in entities]
        if not entities or None in variables:
            return None if entities else "None"
        if len(entities) == 1:
            return variables[0]
        name = " and ".join(entities)
        keys = [key for variable in variables for key in self._scope[str(variable)].keys]
        return self._variables.get(("entities", name)) or self._entity(name, keys)

    def _service(self, service: Spec) -> None:
        name = service["name"]
        what = f"service {name}"
        features: list[str] = []
        for projection in service.get("features", []):
            view = projection["featureViewName"]
            if view not in self._features:
                self._partly(what, f"{view} is left out: it is not mapped")
                continue
            features += self._projected(projection, what)
        if not features:
            self._unmapped.append(Unmapped(what, "nothing that it serves is mapped"))
            return
        body, facts = "\n".join(f"    {feature}," for feature in features), _facts(service)
        self._define("services", name, lambda slug: f"FeatureService({_text(slug)}, [\n{body}\n]{facts})", what)
        self._leftovers(what, service, {"name", "features", "description", "owner", "tags", "project"})

    def _projected(self, projection: Spec, what: str) -> list[str]:
        """What a service takes of a view: all of it, or some features, under another name or by other keys."""
        view, names = (
            self._variables["views", projection["featureViewName"]],
            self._features[projection["featureViewName"]],
        )
        columns = [column["name"] for column in projection.get("featureColumns", [])]
        missing = [name for name in columns if name not in names]
        if missing:
            self._partly(what, f"{', '.join(missing)} of {projection['featureViewName']} are left out: not mapped")
        alias, keys = projection.get("featureViewNameAlias"), projection.get("joinKeyMap", {})
        if alias or keys:
            slug = _slug(alias or "_".join([view, *keys.values()]))
            renamed = "".join(f", **{{{_text(key)}: {_text(column)}}}" for key, column in keys.items())
            keyed = self._define("views", slug, lambda name: f"{view}.keyed(name={_text(name)}{renamed})", what)
            if keyed is None:
                return []
            view = keyed
        self._leftovers(what, projection, {
            "featureViewName", "featureViewNameAlias", "featureColumns", "joinKeyMap", "viewType", "batchSource",
            "streamSource", "timestampField", "createdTimestampColumn", "versionTag"})  # fmt: skip
        if set(names) <= set(columns):
            return [view]
        selected = [names[name] for name in columns if name in names]
        return [f"{view}.{name}" if isinstance(getattr(self._scope[view], name, None), ViewFeature)
                else f"ViewFeature({view}, {_text(name)})" for name in selected]  # fmt: skip

    # how it is written ------------------------------------------------------------------------------------------------

    def _define(
        self, kind: str, name: str, write: Callable[[str], str], what: str, *, note: str | None = None
    ) -> str | None:
        """Write a definition and execute it; None if it is refused. Names are slugs, and every value is a literal."""
        slug = _unique(_slug(name), {*self._defined[kind], *(self._defined["views"] if kind == "services" else [])})
        variable = _unique(slug + "_table" * (kind == "tables") + "_" * keyword.iskeyword(slug), self._scope)
        text = f"{variable} = {write(slug)}"
        try:
            exec(compile(text, "definition", "exec"), self._scope)  # noqa: S102  # see above
        except RetrodictError as error:
            self._unmapped.append(Unmapped(what, f"{getattr(error, 'rule', 'refused')} ({error.where})"))
            return None
        self._defined[kind].append(slug)
        self._variables[kind, name] = variable
        if kind != "tables":  # its source has the same name
            self._renamed(what, name, slug)
        self._lines += [*([note] if note else []), text]
        return variable

    def _renamed(self, what: str, name: str, slug: str) -> None:
        if slug != name:
            self._partly(what, f"it is called {slug} here")

    def _partly(self, what: str, reason: str) -> None:
        self._unmapped.append(Unmapped(what, reason, partly=True))

    def _leftovers(self, what: str, spec: Spec, handled: set[str]) -> None:
        """Name the fields that nothing here stands for."""
        for field in sorted(spec.keys() - handled):
            self._partly(what, f"its field {field} has no counterpart")


def _facts(spec: Spec) -> str:
    """Description, owner and tags, which views and services of both have."""
    texts = {name: spec[name] for name in ("description", "owner") if spec.get(name)}
    tags = [f"{name}:{value}" for name, value in spec.get("tags", {}).items()]
    return "".join(
        [*(f", {name}={_text(text)}" for name, text in texts.items()), f", tags={_texts(tags)}" if tags else ""]
    )


def _slug(name: str) -> str:
    """A name as definitions here have it: lower-case letters, digits and single underscores, a letter first."""
    text = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return (text if text[:1].isalpha() else f"n_{text}".strip("_"))[:63].strip("_")


def _unique(name: str, others: Iterable[str]) -> str:
    numbered = (f"{name[: 62 - len(str(n))]}_{n}" for n in count(2))
    return next(text for text in chain([name], numbered) if text not in others)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _texts(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"
