"""The face: everything the product does is a method of :class:`Project`."""

from retrodict.project.project import Project

__all__ = ["Project"]
