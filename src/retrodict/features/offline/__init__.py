"""Training frames: features of every row of a spine, as they could have been known at its time.

One frame: ``frame`` (what a user of the room calls), ``prepared`` (events sorted once), ``totals`` and ``gathering``
(what is made of them), ``outcomes`` (what came after). Of any length: ``frames``, in bounded memory.

Sorted events on disk: ``indexes`` (which index serves which table version), ``_index`` (what one holds), ``_arrays``.

Frames that stay: ``work`` (a spine and what is computed of it, by any engine), ``keeping`` (into a table that grows),
``growth`` (whether what is there still stands), ``kept`` (what there is).
"""

from retrodict.features.offline.frame import Rows, Tables, training_frame

__all__ = ["Rows", "Tables", "training_frame"]
