"""Tables of what MLflow keeps beside runs: its experiments and its logged models."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, MetaData, String, Table, Text

__all__ = ["experiments", "metadata", "models"]

metadata = MetaData()
experiments = Table(
    "mlflow_experiments",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(500), nullable=False, unique=True),
    Column("created", BigInteger, nullable=False),
)
models = Table(
    "mlflow_models", metadata, Column("id", String(64), primary_key=True), Column("body", Text, nullable=False)
)
