"""The face: everything the product does is a method of :class:`Project` or of one of its namespaces."""

from importlib import import_module

from retrodict.core.clock import parse_time
from retrodict.core.display import Facts, Grid, Shown, text_of, to_json
from retrodict.project.project import Project

__all__ = ["Facts", "Grid", "Project", "Shown", "find_namespace", "parse_time", "text_of", "to_json"]

NAMESPACES = {
    "data": "Data",
    "data.quarantine": "Quarantine",
    "decisions": "Decisions",
    "features": "Features",
    "ledger": "Ledger",
    "models": "Models",
    "outcomes": "Outcomes",
    "policies": "Policies",
    "runs": "Runs",
}


def find_namespace(name: str) -> type:
    """Class of a namespace of the project, ``""`` for the project itself: for skins that read signatures."""
    if not name:
        return Project
    namespace_class: type = getattr(import_module(f"{__name__}.{name.partition('.')[0]}"), NAMESPACES[name])
    return namespace_class
