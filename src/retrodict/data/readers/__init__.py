"""Reads what people have into one batch: files, folders, standard input, Arrow objects, frames, SQL queries.

Nothing is guessed from the rows, and no batch is held in memory: what is not Parquet already becomes Parquet in a
staging folder, so that everything after reads one format, as often as it needs and a few rows at a time.
"""

from retrodict.data.readers._files import names_file
from retrodict.data.readers.batch import Batch
from retrodict.data.readers.opener import open_batch, read_batch
from retrodict.data.readers.sql import SqlQuery

__all__ = ["Batch", "SqlQuery", "names_file", "open_batch", "read_batch"]
