"""Model versions, approvals, and what is in force since when."""

from retrodict.registry.deployments import (
    TARGET,
    Action,
    Deployment,
    Revision,
    change,
    current,
    deployable,
    history,
    in_force,
    rolled_back,
    standing,
)
from retrodict.registry.versions import (
    Approval,
    ModelVersion,
    approve,
    describe_version,
    get_version,
    list_versions,
    register,
    runtime_grid,
    version_to_use,
)

__all__ = [
    "TARGET",
    "Action",
    "Approval",
    "Deployment",
    "ModelVersion",
    "Revision",
    "approve",
    "change",
    "current",
    "deployable",
    "describe_version",
    "get_version",
    "history",
    "in_force",
    "list_versions",
    "register",
    "rolled_back",
    "runtime_grid",
    "standing",
    "version_to_use",
]
