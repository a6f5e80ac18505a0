"""A model version as a folder that ``mlflow.pyfunc.load_model`` loads: the artifact that serves, byte for byte.

MLflow imports this module by the name that the folder's ``MLmodel`` holds, and calls ``_load_pyfunc``. Nothing is
unpickled: the parts of the artifact are verified against their hashes as everywhere.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodict.core.clock import format_time
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import get_version
from retrodict.stores.objects.folder import FolderObjects
from retrodict.workspace import Workspace

__all__ = ["PyfuncModel", "write_pyfunc"]

_DIGEST = "artifact.txt"


class PyfuncModel:
    """What MLflow calls: columns of features in, outputs after calibration out.

    Parameters
    ----------
    artifact : ModelArtifact
    """

    def __init__(self, artifact: ModelArtifact) -> None:
        self.artifact = artifact

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Score rows, as serving does from the same values of features.

        Parameters
        ----------
        model_input : pandas.DataFrame or mapping of str to array_like
            The features of the model by name.
        params : mapping, optional
            Not looked at: a model has none.

        Returns
        -------
        numpy.ndarray, shape (n,) or (n, outputs)
        """
        del params
        columns = {name: pa.array(model_input[name], from_pandas=True) for name in self.artifact.inputs.names}
        return self.artifact.score_rows(columns).score


def _load_pyfunc(path: str) -> PyfuncModel:
    """Entry of MLflow; the name is its."""
    folder = Path(path)
    digest = (folder / _DIGEST).read_text(encoding="ascii").strip()
    return PyfuncModel(ModelArtifact.load(FolderObjects(folder / "objects"), digest))


def write_pyfunc(workspace: Workspace, ref: str, folder: Path) -> Path:
    """Write a model version as a folder of MLflow, and return the folder; MLflow itself is not needed for it.

    Parameters
    ----------
    workspace : Workspace
    ref : str
        ``name@version``.
    folder : Path
        Made if needed; what lies in it under the same names is replaced.
    """
    version = get_version(workspace, ref)
    artifact = ModelArtifact.load(workspace.objects, version.artifact)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    digest = artifact.save(FolderObjects(data / "objects"))
    (data / _DIGEST).write_text(digest, encoding="ascii")
    described = {
        "flavors": {
            "python_function": {"loader_module": __name__, "data": "data", "python_version": platform.python_version()},
            "retrodict": {"model": version.ref, "artifact": digest, "run": f"run:{version.run}"},
        },
        "utc_time_created": format_time(version.time).replace("T", " ").removesuffix("Z"),
    }
    # JSON is YAML, which is what MLflow reads.
    (folder / "MLmodel").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return folder
