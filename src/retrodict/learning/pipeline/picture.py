"""The graph of a pipeline for people and for other programs: Mermaid, Graphviz, SVG, a CronJob of Kubernetes."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence

from retrodict.learning.pipeline.definitions import Pipeline, PipelineStep, parse_memory

__all__ = ["does", "to_cronjob", "to_dot", "to_mermaid", "to_svg"]

Graph = Mapping[str, Sequence[str]]

_COLOURS = {"finished": "#d5ead8", "skipped": "#d5ead8", "failed": "#f2cfcb", "refused": "#f6e3bd"}
_WIDE, _HIGH, _GAP = 190, 36, 28


def does(part: PipelineStep) -> str:
    """What a step does, in two words.

    Examples
    --------
    >>> from retrodict import step
    >>> does(step.train("late_arrival"))
    'train late_arrival'
    """
    params = dict(part.params)
    noun = next((str(params[name]) for name in ("table", "model", "policy", "monitor") if name in params), "")
    return f"{part.noun} {noun}".strip() if part.noun else "function"


def to_mermaid(graph: Graph) -> str:
    """Flow chart of Mermaid, as pages of Markdown show it.

    Examples
    --------
    >>> print(to_mermaid({"raw": [], "cleaned": ["raw"]}))
    flowchart LR
        raw
        cleaned
        raw --> cleaned
    """
    edges = [f"    {need} --> {name}" for name, needs in graph.items() for need in needs]
    return "\n".join(["flowchart LR", *(f"    {name}" for name in graph), *edges])


def to_dot(graph: Graph) -> str:
    """Digraph of Graphviz."""
    edges = [f'  "{need}" -> "{name}";' for name, needs in graph.items() for need in needs]
    return "\n".join(["digraph {", "  rankdir=LR;", *(f'  "{name}";' for name in graph), *edges, "}"])


def to_svg(graph: Graph, statuses: Mapping[str, str]) -> str:
    """Picture of the steps from left to right, coloured by what became of each."""
    depth: dict[str, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for name, needs in graph.items():  # in an order of execution
        depth[name] = max((depth[need] + 1 for need in needs), default=0)
        row = sum(other == depth[name] for other in depth.values()) - 1
        places[name] = (depth[name] * (_WIDE + 2 * _GAP) + _GAP, row * (_HIGH + _GAP) + _GAP)
    lines = []
    for name, needs in graph.items():
        x, y = places[name]
        for need in needs:
            a, b = places[need][0] + _WIDE, places[need][1] + _HIGH // 2
            c, d = x, y + _HIGH // 2
            lines.append(f'<path d="M{a} {b} C{a + _GAP} {b} {c - _GAP} {d} {c} {d}" fill="none" stroke="#667"/>')
        colour = _COLOURS.get(statuses.get(name, ""), "#eceef2")
        lines.append(f'<rect x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" rx="6" fill="{colour}" stroke="#667"/>'
                     f'<text x="{x + _WIDE // 2}" y="{y + 23}" text-anchor="middle" font-size="13" '
                     f'font-family="sans-serif">{html.escape(name)}</text>')  # fmt: skip
    width, height = (max(place[axis] for place in places.values()) + size + _GAP
                     for axis, size in ((0, _WIDE), (1, _HIGH)))  # fmt: skip
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{"".join(lines)}</svg>'


def to_cronjob(pipeline: Pipeline, project: str, image: str, actor: str) -> str:
    """Manifest of a CronJob that runs a pipeline with a schedule; the project's folder is a claim of its name.

    One at a time, without retries of its own: the next run goes on where one ended.
    """
    name = f"{project}-{pipeline.name}".replace("_", "-")
    command = ["retrodict", "pipelines", "run", pipeline.name, "--project", "/project", "--json"]
    memory = max((parse_memory(part.memory, where=part.name) for part in pipeline.steps if part.memory), default=0)
    cpus = max((part.cpus or 0 for part in pipeline.steps), default=0)
    limits = {**({"memory": str(memory + 10**9)} if memory else {}), **({"cpu": str(cpus)} if cpus else {})}
    text = json.dumps  # every scalar of JSON is one of YAML
    return f"""\
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {text(name)}
spec:
  schedule: {text(pipeline.schedule)}
  timeZone: {text("Etc/UTC" if pipeline.timezone == "UTC" else pipeline.timezone)}
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: run
              image: {text(image)}
              command: {text(command)}
              env: [{{"name": "RETRODICT_ACTOR", "value": {text(actor)}}}]
              resources: {text({"limits": limits} if limits else {})}
              volumeMounts: [{{"name": "project", "mountPath": "/project"}}]
          volumes:
            - name: project
              persistentVolumeClaim: {{"claimName": {text(project.replace("_", "-"))}}}"""
