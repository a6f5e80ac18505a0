"""Online state: written from streams and history, read for one request in microseconds.

``state``
    Layout of the key store: blocks (the events of one key, packed), segments (of hot keys), entries.
``write``
    A batch of events as rows, merged into blocks in one transaction per view and partition.
``read``
    Feature values of a request, their ids, and which features are slow.
``stream``
    Feeding a state from streams and tables, how far behind it is, and the health of what it serves.

Each folder imports only from those above it. Rooms outside import from here: this is the list of public names.
"""

from retrodict.features.online.read.features import OnlineFeatures
from retrodict.features.online.read.heat import HotFeature, hot_features
from retrodict.features.online.read.rows import FeatureRow, Place, age_of
from retrodict.features.online.state.entries import Applied
from retrodict.features.online.stream.feeder import (
    Progress,
    StreamFeeder,
    decode_event,
    encode_event,
    stream_of,
    streamed_rows,
)
from retrodict.features.online.stream.health import FeatureHealth, ViewFlow
from retrodict.features.online.stream.table_feeder import TableLag
from retrodict.features.online.stream.upkeep import (
    Upkeep,
    build_online,
    online_features,
    online_state,
    table_lags,
    unbuilt_views,
)
from retrodict.features.online.write.writer import OnlineState

__all__ = [
    "Applied",
    "FeatureHealth",
    "FeatureRow",
    "HotFeature",
    "OnlineFeatures",
    "OnlineState",
    "Place",
    "Progress",
    "StreamFeeder",
    "TableLag",
    "Upkeep",
    "ViewFlow",
    "age_of",
    "build_online",
    "decode_event",
    "encode_event",
    "hot_features",
    "online_features",
    "online_state",
    "stream_of",
    "streamed_rows",
    "table_lags",
    "unbuilt_views",
]
