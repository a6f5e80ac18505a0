"""Lineage as a tree: edges of the ledger walked from one object, or everything behind one decision."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrodict.cli._text import count, number, table, yes
from retrodict.core.identity import short

if TYPE_CHECKING:
    from rich.tree import Tree

__all__ = ["decision_tree", "lineage_tree", "shorten"]

# (target, role, source), as the ledger gives them
Edge = tuple[str, str, str]

_HASH = re.compile(r"\b[0-9a-f]{64}\b")


def lineage_tree(name: str, up: Sequence[Edge], down: Sequence[Edge]) -> list[Any]:
    """Two trees: what the object was made from, and what was made from it; each object is unfolded once."""
    made_from: dict[str, list[tuple[str, str]]] = {}
    for target, role, source in up:
        made_from.setdefault(target, []).append((role, source))
    used_by: dict[str, list[tuple[str, str]]] = {}
    for target, role, source in down:
        used_by.setdefault(source, []).append((role, target))
    parts: list[Any] = []
    for title, links in (("was made from", made_from), ("was used by", used_by)):
        if links.get(name):
            parts.append(_grow(f"{shorten(name)} {title}", name, links))
    return parts or [f"{shorten(name)} was made from nothing that is recorded, and nothing was made from it."]


def _grow(title: str, start: str, links: Mapping[str, list[tuple[str, str]]]) -> Tree:
    from rich.tree import Tree

    tree, seen = Tree(title), {start}

    def add(branch: Tree, name: str) -> None:
        for role, other in links.get(name, []):
            again = other in seen and other in links
            child = branch.add(f"{shorten(other)} ({role})" + (" …" if again else ""))
            if other not in seen:
                seen.add(other)
                add(child, other)

    add(tree, start)
    return tree


def decision_tree(found: Mapping[str, Any]) -> Tree:
    """Everything behind one decision, from the answer down to rows, run and approval.

    Parameters
    ----------
    found : mapping
        What :func:`~retrodict.decisions.lineage.trace_decision` gives.
    """
    from rich.tree import Tree

    decision = found["decision"]
    tree = Tree(
        f"{decision['id']}: {decision['decision']}, score {number(decision.get('score'))}, at {decision['time']}"
    )
    for reason in decision.get("reasons", ()):
        tree.add(f"because {reason}")
    _hang(tree, "policy", found.get("policy"))
    _hang(tree, "fallback", found.get("fallback"))
    if "features" in found:
        tree.add("features").add(_features(found["features"]))
    for name in ("model", "run", "data", "code", "environment", "approvals", "log"):
        _hang(tree, name, found.get(name))
    return tree


def _features(listed: Sequence[Mapping[str, Any]]) -> Any:
    rows = [
        (each["feature"], each["value"], each.get("rows"), each.get("from") or each.get("inputs"), each.get("keys"))
        for each in listed
    ]
    return table(("feature", "value>", "rows>", "from", "newest rows"), rows)


def _hang(branch: Tree, name: str, value: Any) -> None:
    """Hang a nested value under a branch; what is empty is left out."""
    if isinstance(value, Mapping):
        if value:
            child = branch.add(name)
            for key, inner in value.items():
                _hang(child, str(key), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _hang(branch, name, " · ".join(_said(inner)) if isinstance(inner, Mapping) else inner)
    elif value is not None:
        branch.add(f"{name.replace('_', ' ')}: {_say(value)}")


def _said(value: Mapping[str, Any]) -> list[str]:
    return [f"{name} {_say(inner)}" for name, inner in value.items() if inner is not None]


def _say(value: Any) -> str:
    if isinstance(value, bool):
        return yes(value)
    if isinstance(value, float):
        return number(value)
    return count(value) if isinstance(value, int) else shorten(str(value))


def shorten(text: str) -> str:
    """Hashes as people compare them."""
    return _HASH.sub(lambda match: short(match.group()), text)
