"""What a room is given first: the folder of a project, its settings, its definitions, its stores."""

from retrodict.workspace.code import capture_code, check_code, commit_of, definitions_of
from retrodict.workspace.definitions import Definitions, load_definitions
from retrodict.workspace.workspace import Workspace

__all__ = ["Definitions", "Workspace", "capture_code", "check_code", "commit_of", "definitions_of",
           "load_definitions"]  # fmt: skip
