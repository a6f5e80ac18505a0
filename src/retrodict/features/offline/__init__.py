"""Training frames: features of every row of a spine, as they could have been known at its time."""

from retrodict.features.offline.frame import Rows, Tables, training_frame

__all__ = ["Rows", "Tables", "training_frame"]
