"""Online state: written from streams and history, read for one request in microseconds.

What lies in the key store: ``blocks`` (the events of one key, packed), ``segments`` (of hot keys), ``entries`` (names,
and what a state knows about itself).

Writing: ``stream`` (feeds a state from a stream or history) with ``decoding`` and ``known`` (what a stream holds);
``state`` (what a user of the room calls), ``partitions``, ``arrivals`` (a batch as rows), ``writing`` (a transaction),
``merging`` (rows into blocks).

Reading: ``features`` (what a user of the room calls), ``views`` (one view of a request), ``programs`` (for the kernel
in C) and ``reading`` (the same as Python source), ``finishing``, ``bagging``, ``explaining``, ``rows`` (what results).

``heat`` tells beforehand which features will be slow.
"""

from retrodict.features.online.features import OnlineFeatures
from retrodict.features.online.rows import FeatureRow

__all__ = ["FeatureRow", "OnlineFeatures"]
