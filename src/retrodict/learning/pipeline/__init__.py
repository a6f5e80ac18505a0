"""Pipelines: steps over the nouns of a project and functions of one's own, in the order in which they need each other.

``definitions``, ``partitions``
    What a pipeline is, as data; loads nothing heavy.
``code``, ``outputs``
    What a step is made of, and what it made.
``leases``, ``child``
    Who executes a step, and in which process, within which limits.
``runner``
    One run: what is unchanged is skipped, the rest executed, all of it recorded.
``picture``, ``dagster``
    The graph for people and other programs; as assets of Dagster.
"""

from retrodict.learning.pipeline.definitions import Pipeline, PipelineStep, step

__all__ = ["Pipeline", "PipelineStep", "step"]
