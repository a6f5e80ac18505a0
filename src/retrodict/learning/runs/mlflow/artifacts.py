"""Artifacts of runs as MLflow reads and writes them: content-addressed objects of the project, named by path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from retrodict.learning.runs.mlflow.places import OPEN, read_address, workspace_of
from retrodict.learning.runs.record import Artifact
from retrodict.learning.runs.store import get_run

__all__ = ["ProjectArtifacts"]


class ProjectArtifacts(ArtifactRepository):  # type: ignore[misc]  # of a library without types
    """Files of one run, or of one folder of them; written while the run goes on in this process."""

    def __init__(self, artifact_uri: str, *arguments: Any, **options: Any) -> None:
        super().__init__(artifact_uri, *arguments, **options)
        _, place = read_address(artifact_uri)
        if place is None:
            raise MlflowException(f"{artifact_uri} is the address of a project, not of a run's artifacts")
        self._workspace = workspace_of(artifact_uri)
        self._run, self._folder = place

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Keep one file."""
        self._keep(Path(local_file), self._inside(artifact_path, Path(local_file).name))

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Keep the files of a folder, by their paths in it."""
        for file in sorted(Path(local_dir).rglob("*")):
            if file.is_file():
                self._keep(file, self._inside(artifact_path, file.relative_to(local_dir).as_posix()))

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Files and folders right below a path."""
        prefix = self._inside(path)
        prefix = f"{prefix}/" if prefix else ""
        below: dict[str, FileInfo] = {}
        for name, file in self._files().items():
            if name.startswith(prefix):
                first, nested, _ = name.removeprefix(prefix).partition("/")
                address = f"{path}/{first}" if path else first
                size = None if nested else len(self._workspace.objects.get(file.digest))
                below[first] = FileInfo(address, bool(nested), size)
        return [below[name] for name in sorted(below)]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        files, name = self._files(), self._inside(remote_file_path)
        if name not in files:
            raise MlflowException(f"run:{self._run} has no artifact {name!r}")
        Path(local_path).write_bytes(self._workspace.objects.get(files[name].digest))

    def _keep(self, file: Path, name: str) -> None:
        run = OPEN.get(self._run)
        if run is None:
            raise MlflowException(f"run:{self._run} must go on in this process to be given an artifact")
        run.log_artifact(file, name)

    def _inside(self, *parts: str | None) -> str:
        return "/".join(part.strip("/") for part in (self._folder, *parts) if part and part.strip("/"))

    def _files(self) -> dict[str, Artifact]:
        if self._run in OPEN:
            OPEN[self._run].flush()
        return {file.name: file for file in get_run(self._workspace, f"run:{self._run}").artifacts}
