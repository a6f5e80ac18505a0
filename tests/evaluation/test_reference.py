"""The reference of a model version: what drift is judged against, long after the rows are gone."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from retrodict.evaluation.reference import Reference


def test_a_reference_survives_json_with_the_count_of_every_bin() -> None:
    """Text is a category, the rest numbers; counts keep the order of their bins."""
    origins = ["JFK", "EWR", "JFK", None, "JFK"]
    reference = Reference.of({"origin": pa.array(origins), "wind": pa.array([1.0, 2.0, 2.0, None, 9.0])})
    read = Reference.from_json(reference.to_json())
    assert read.features["origin"].profile.labels == ("EWR", "JFK", "unseen", "null")
    counted = Counter(origins)
    assert read.features["origin"].counts.tolist() == [counted["EWR"], counted["JFK"], 0, counted[None]]
    for name, feature in reference.features.items():
        assert read.features[name].profile == feature.profile
        assert read.features[name].counts.tolist() == feature.counts.tolist()
    assert read.features["wind"].counts.sum() == len(origins)
    assert read.to_json() == reference.to_json()
