"""A project: its configuration, its definitions, its stores."""

from retrodict.project.code import capture_code, definitions_of
from retrodict.project.definitions import Definitions, load_definitions
from retrodict.project.project import Project

__all__ = ["Definitions", "Project", "capture_code", "definitions_of", "load_definitions"]
