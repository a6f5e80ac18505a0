"""The request of a decision: decoded strictly, checked against what the model was trained with, never echoed back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from retrodict.core.clock import parse_time
from retrodict.core.errors import DefinitionError, InputError, near
from retrodict.core.expressions import parse
from retrodict.core.kinds import KINDS, ExpressionKind, kind_error, reader_of
from retrodict.decisions.records import Value

__all__ = [
    "DecisionRequest",
    "RequestSchema",
    "unread_warnings",
    "check_unique",
    "decode_body",
    "decode_request",
    "form_fault",
    "json_fault",
]


class DecisionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /v1/decisions/{policy}``.

    Attributes
    ----------
    entities : dict
        Entity keys of the policy's features; null where there is none.
    context : dict
        What the caller knows about this one case: inputs of derived features, values for rules.
    key : str, optional
        Key of the decided thing in the label's table; outcomes join on it.
    explain : bool
        Ask for reasons.
    """

    entities: dict[str, Value]
    context: dict[str, Value] = {}
    key: str | None = None
    explain: bool = False


Form = TypeVar("Form", bound=msgspec.Struct)


AnyRequest = TypeVar("AnyRequest", bound=DecisionRequest)
_SEE = "GET /v1/policies/{policy}"


def decode_request(body: bytes, schema: RequestSchema | None = None) -> DecisionRequest:
    """Request of a JSON body; see :func:`decode_form`."""
    return decode_form(body, DecisionRequest, schema)


def decode_form(body: bytes, form: type[AnyRequest], schema: RequestSchema | None) -> AnyRequest:
    """Request of a JSON body, in one of its forms.

    Raises
    ------
    InputError
        If it is not JSON, or not of this form; with a schema the message names what is wrong with the values as well.
    """
    try:
        return decode_body(body, form, see=_SEE)
    except InputError as error:
        faults = [] if schema is None else _all_faults(body, form, schema)
        raise _together(faults or [error]) from None


def _all_faults(body: bytes, form: type[DecisionRequest], schema: RequestSchema) -> list[InputError]:
    """What is wrong with the form of a body and with its values; nothing where it cannot be read."""
    faults: list[InputError] = []
    try:
        values = msgspec.json.decode(body)
        check_unique(body)
    except InputError as error:
        faults.append(error)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    if not isinstance(values, dict):
        return []
    fields = {field.name: field for field in msgspec.structs.fields(form)}
    if unknown := values.keys() - fields:
        remedy = f"Send {', '.join(fields)}; keys and values go into the first two"
        faults.append(InputError("the body must have no other fields than those of a request", where="body",
                                 got=f"{len(unknown)} of other names", remedy=remedy))  # fmt: skip
    objects: dict[str, dict[str, Any]] = {}
    for name, field in fields.items():
        value = values.get(name, msgspec.UNSET)
        if name in ("entities", "context"):
            objects[name] = value if isinstance(value, dict) else {}
            if isinstance(value, dict) or (value is msgspec.UNSET and not field.required):
                continue
            got = f"no field {name}" if value is msgspec.UNSET else type(value).__name__
            faults.append(InputError("the field must be an object of values by name", where=f"body, field {name!r}",
                                     got=got, remedy=f"See {_SEE} for the request"))  # fmt: skip
        elif value is not msgspec.UNSET:
            try:
                msgspec.convert(value, field.type)
            except msgspec.ValidationError as error:
                faults.append(InputError("the field must be of its kind", where=f"body, field {name!r}",
                                         **form_fault(str(error), list(fields), _SEE)))  # fmt: skip
    explain = values.get("explain") is True
    return faults + schema.faults(DecisionRequest(objects["entities"], objects["context"], explain=explain))


def _together(faults: Sequence[InputError]) -> InputError:
    """One error for all that is wrong."""
    if len(faults) == 1:
        return faults[0]
    listed = "; ".join(f"({number}) {fault}" for number, fault in enumerate(faults, start=1))
    return InputError(f"every value must be right: {listed}", where="body", got=f"{len(faults)} faults",
                      remedy="Correct each of them")  # fmt: skip


@lru_cache
def _decoder(form: type[Form]) -> msgspec.json.Decoder[Form]:
    return msgspec.json.Decoder(form)


def decode_body(body: bytes, form: type[Form], *, see: str, unique: bool = True) -> Form:
    """Request of a form, of a JSON body.

    Parameters
    ----------
    body : bytes
    form : subclass of msgspec.Struct
        Its fields are those of the body.
    see : str
        Address that says what a request has to bring.
    unique : bool, default True
        Refuse a name that stands twice in one object; False where the parts of the body are decoded by themselves.

    Raises
    ------
    InputError
        If it is not JSON or not of this form. Field paths of ours are named; the caller's data is not repeated.
    """
    try:
        decoder: msgspec.json.Decoder[Form] = _decoder(form)
        request = decoder.decode(body)
    except msgspec.ValidationError as error:
        path = str(error).rpartition(" - at `")[2].rstrip("`") if " - at `" in str(error) else ""
        # The path may hold keys that the caller made up: only its first step is ours.
        head = path.removeprefix("$").lstrip(".").split(".")[0].split("[")[0]
        fields = form.__struct_fields__
        needed = [field.name for field in msgspec.structs.fields(form) if field.required]
        others = [name for name in fields if name not in needed]
        optional = f"; it may have {', '.join(others)}" if others else ""
        raise InputError(
            f"the body must be an object with {' and '.join(needed)}{optional}, and no other field; values must be "
            "text, numbers, true, false or null",
            where=f"body, field {head!r}" if head in fields else "body",
            **form_fault(str(error).partition(" - at `")[0], fields, see),
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            "the body must be JSON in UTF-8",
            where="body",
            **json_fault(error, body, expected="one JSON object"),
        ) from error
    if unique:
        check_unique(body)
    return request


def check_unique(body: bytes) -> None:
    """Refuse a name that stands twice in one object of a body that was decoded: which value holds is nobody's guess."""
    _names.decode(body.decode())


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) != len(dict(pairs)):
        raise InputError("a name must stand once in an object", where="body", got="one that stands twice",
                         remedy="Send one of the two values")  # fmt: skip


_names = json.JSONDecoder(object_pairs_hook=_unique, parse_int=len, parse_float=len)


def json_fault(error: Exception, body: bytes, *, expected: str) -> dict[str, str]:
    """What was got and what to do where a body is no JSON; nothing of the body but a word for no number is repeated."""
    if not isinstance(error, msgspec.DecodeError):
        got = "nested without end" if isinstance(error, RecursionError) else "bytes that are not UTF-8"
        return {"got": got, "remedy": f"Send {expected}"}
    place = re.search(r"byte (\d+)", str(error))
    word = re.match(rb"NaN|Infinity|nan|inf", body[int(place[1]) :]) if place else None
    if place and word:
        return {"got": f"{word[0].decode()} at byte {place[1]}", "remedy": "JSON has no such number: send null"}
    return {"got": str(error), "remedy": f"Send {expected}"}


def form_fault(message: str, fields: Sequence[str], see: str) -> dict[str, str]:
    """What was got and what to do, by the decoder's message; names that the caller made up are not repeated."""
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", message)
    if unknown is not None:
        remedy = f"{near(unknown[1], fields, what='field').rstrip('.')}. Keys and values go into {fields[0]}, by name"
        return {"got": "an unknown field", "remedy": remedy}
    missing = re.fullmatch(r"Object missing required field `(.*)`", message)
    if missing is not None:
        return {"got": f"no field {missing[1]}", "remedy": f"Send {missing[1]}; {see} says what it has to hold"}
    if message == "Number out of range":
        return {"got": "a number beyond the range of doubles", "remedy": "Send null or a smaller number"}
    expected = re.fullmatch(r"Expected `(.*)`, got `(.*)`", message)
    if expected is not None:
        return {"got": expected[2], "remedy": f"Send {expected[1].replace(' | ', ' or ').replace('str', 'text')}"}
    return {"got": "another form", "remedy": f"See {see} for the request"}


def unread_warnings(names: Sequence[str], reads: frozenset[str], moment: frozenset[str] = frozenset()) -> list[str]:
    """What to tell the caller, and nobody else, of values of the context that nothing reads, up to five of them.

    ``moment`` has the names by which the moment of a decision is told in training.
    """
    return [_unread_warning(name[:_LONGEST_NAME], reads, name in moment) for name in names[:_TOLD]]


@lru_cache(1_000)
def _unread_warning(name: str, reads: frozenset[str], is_moment: bool) -> str:  # of a cache
    text = f"nothing that decides reads {name!r} of the context"
    if is_moment:
        return f"{text}: the moment of a decision is that at which it is asked for"
    close = get_close_matches(name, reads, n=1)
    return f"{text}; did you mean {close[0]!r}?" if close else text


_KINDS = {kind.request_word: kind for kind in KINDS.values()}
_EPOCH = date(1970, 1, 1)
_TOLD, _LONGEST_NAME = 5, 100
_COMPARISONS = 20  # of missing names with those that nothing reads: thousands would hold up the server for seconds
_Reader = tuple[str, str, Callable[[Any], Any]]  # name, kind as it is written, and what reads a value
FIRST, LAST = parse_time("1900-01-01T00:00Z"), parse_time("2200-01-01T00:00Z")
"""Times that a request may name: a clock that is off by centuries is an error, not a case to decide."""


class RequestSchema:
    """Kinds of the values a policy asks for, as they were in the training rows.

    Parameters
    ----------
    entities, context : mapping of str to str
        Name to kind: text, int, number, bool, time or date.
    explains : bool, default True
        Whether a request may ask for reasons.
    """

    def __init__(self, entities: Mapping[str, str], context: Mapping[str, str], *, explains: bool = True) -> None:
        self.entities, self.context, self._explains = dict(entities), dict(context), explains
        self._readers = {
            field: [(name, word, reader_of(_KINDS[word].name)) for name, word in kinds.items()]
            for field, kinds in (("entities", self.entities), ("context", self.context))
        }

    def check(self, request: DecisionRequest) -> tuple[dict[str, Value], dict[str, Value]]:
        """Entities and context with times as microseconds; unknown context values pass through for the rules.

        A day is a whole number since 1970 as an entity, and ISO 8601 text in the context.

        Raises
        ------
        InputError
            If a value is missing or has the wrong kind; the message names every one that is, and not what was sent.
        """
        if not self._form_faults(request):
            try:
                entities = _checked(request.entities, self._readers["entities"], "entities")
                context = _checked(request.context, self._readers["context"], "context")
            except InputError:  # all are looked for only now: a right request pays nothing for it
                pass
            else:
                return entities, {**request.context, **context}
        raise _together(self.faults(request))

    def faults(self, request: DecisionRequest) -> list[InputError]:
        """Everything that is wrong with a request; values of it may be of any kind of JSON."""
        faults = self._form_faults(request) + self._value_faults(request)
        nested = [
            name for name in request.context.keys() - self.context if isinstance(request.context[name], dict | list)
        ]
        if nested:
            faults.append(InputError("values must be text, numbers, true, false or null", where="body, field 'context'",
                                     got=f"{len(nested)} lists or objects",
                                     remedy="Send what is in them by names of its own"))  # fmt: skip
        return faults

    def _form_faults(self, request: DecisionRequest) -> list[InputError]:
        """Names in the wrong place, and numbers that a record cannot hold."""
        faults = []
        unknown = request.entities.keys() - self.entities.keys()
        if unknown:
            faults.append(InputError(
                f"entities must be out of {sorted(self.entities)}",
                where="body, field 'entities'",
                got=f"{len(unknown)} of other names",
                remedy="Put other values into context",
            ))  # fmt: skip
        if double := request.context.keys() & self.entities.keys():
            faults.append(InputError("a name must be an entity or a value of the context, not both",
                                     where="body, field 'context'", got=sorted(double),
                                     remedy="Leave it out of the context"))  # fmt: skip
        if request.explain and not self._explains:
            faults.append(InputError("reasons must be asked of a policy that gives them",
                                     where="body, field 'explain'", got=True,
                                     remedy="Leave it out, or deploy the policy with explain='asked'"))  # fmt: skip
        long = [v for v in request.context.values() if isinstance(v, int) and not -(2**63) <= v < 2**63]
        if long:
            faults.append(InputError("a whole number must have 64 bits at most", where="body, field 'context'",
                                     got=f"{max(v.bit_length() for v in long)} bits",
                                     remedy="Send it as text"))  # fmt: skip
        return faults

    def _value_faults(self, request: DecisionRequest) -> list[InputError]:
        """What is wrong with each value by itself."""
        faults = []
        for field, values in (("entities", request.entities), ("context", request.context)):
            names = {name for name, _, _ in self._readers[field]}
            unread, missing = values.keys() - names, len(names - values.keys())
            for reader in self._readers[field]:
                value = {name: values[name] for name in reader[:1] if name in values}
                try:
                    _checked(value, [reader], field, unread if missing * len(unread) <= _COMPARISONS else ())
                except InputError as error:
                    faults.append(error)
        return faults

    def check_condition(self, text: str | None, *, where: str) -> None:
        """Refuse a condition over a request that reads other values, or such of another kind, or that is none.

        A day is a number as an entity and text in the context, as :meth:`check` gives it.

        Raises
        ------
        DefinitionError
            With the near names.
        """
        if text is None:
            return
        days: tuple[tuple[Mapping[str, str], ExpressionKind], ...] = (self.context, "text"), (self.entities, "number")
        kinds: dict[str, ExpressionKind | None] = {
            name: _KINDS[word].expression if word != "date" else day
            for words, day in days for name, word in words.items()
        }  # fmt: skip
        kind = parse(text, where=where).check_columns(kinds, where=where)
        if kind not in (None, "bool"):
            raise DefinitionError("a condition must be true or false", where=where, got=f"{text!r}, of kind {kind}",
                                  remedy="Write one like 'weight > 5'")  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain form, for ``GET /v1/policies/{policy}``."""
        return {"entities": self.entities, "context": self.context}


def _checked(
    values: Mapping[str, Value], readers: Sequence[_Reader], field: str, unread: Collection[str] = ()
) -> dict[str, Value]:
    """Values by their readers; a name that is missing may have been meant by one that nothing reads."""
    checked: dict[str, Value] = {}
    for name, word, read in readers:
        if name not in values:
            kind = _KINDS[word]
            near_name = "; a value of nearly this name was sent" if get_close_matches(name, unread) else ""
            raise InputError(
                f"the request must have {field} {name!r}",
                where="body",
                got=f"no value of this name{near_name}",
                remedy=f"Send it as {kind.description}, or as null",
            )
        value = values[name]
        if value is None:
            checked[name] = None
            continue
        try:
            result = read(value)
            if isinstance(result, date):  # as a key a day is its number, in every execution; a rule compares texts
                result = (result - _EPOCH).days if field == "entities" else result.isoformat()
            checked[name] = result
        except (TypeError, ValueError):
            raise kind_error(_KINDS[word].name, value, where=f"body, {field}, {name!r}") from None
        if word == "time" and not FIRST <= result < LAST:
            raise InputError("a time must be in the years 1900 to 2199", where=f"body, {field}, {name!r}",
                             got="one outside of them", remedy="Correct it, or send null")  # fmt: skip
    return checked
