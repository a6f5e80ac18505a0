"""Table of the tags in the record store: what each name meant, from when to when."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

__all__ = ["metadata", "tags"]

metadata = MetaData()

# Every row is one change of one tag and is never updated, so what a tag meant at any time is a query. ``log`` is the
# SHA-256 of the log entry of that version: a table that was deleted and made anew has the numbers, but not the hashes.
tags = Table(
    "dataset_tags",
    metadata,
    Column("dataset", String(200), primary_key=True),
    Column("tag", String(63), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("action", String(20), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("log", String(64), nullable=False),
    Column("hold", Integer, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("reason", Text, nullable=False),
)
