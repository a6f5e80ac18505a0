"""Training frames: features of every row of a spine, as they could have been known at its time.

One frame: ``frame`` (what a user of the room calls), ``prepared`` (events sorted once), ``totals`` and ``window_bags``
(what is computed of them), ``outcomes`` (what came after). Of any length: ``spine`` (its rows, from tables, files and
memory; ``texts`` gives columns of text their types), ``batches`` (in bounded memory), ``files`` (CSV and Parquet).

Sorted events on disk: ``event_index`` (which index serves which table version), ``_layout`` (what one holds),
``_arrays`` (its files).

Frames that are kept: ``work`` (what is computed of a spine, by which engine), ``kept_writer`` (into a table that
grows), ``growth`` (whether its rows still hold), ``kept_frame`` (which there are, their rows and their origin).
"""

from retrodict.features.offline.frame import Rows, Tables, training_frame

__all__ = ["Rows", "Tables", "training_frame"]
