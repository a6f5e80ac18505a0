"""Splits: nobody is on two sides, nothing changes side, classes keep their shares, folds see no overlapping outcome."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, StratifiedKFold, StratifiedShuffleSplit

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.identity import content_hash
from retrodict.core.tasks import Target
from retrodict.models.splits import (
    GroupSplit,
    HashSplit,
    Purged,
    RandomSplit,
    Rolling,
    TimeSplit,
    folds,
    halves,
    nested_folds,
    split_from_dict,
)  # fmt: skip

DAY = 86_400_000_000
NOW = 10**18
SPAN = "2024-01-01/2024-03-01"
EVERY = [TimeSplit(SPAN), Rolling(SPAN), Purged(SPAN), RandomSplit(), GroupSplit(by="id"), HashSplit(by="id")]


@dataclass
class Rows:
    labels: np.ndarray
    columns: dict = field(default_factory=dict)
    at: np.ndarray | None = None
    known_at: np.ndarray | None = None
    target: Target = field(default_factory=Target)

    def __post_init__(self):
        self.at = np.zeros(len(self.labels), dtype=np.int64) if self.at is None else self.at
        self.known_at = self.at if self.known_at is None else self.known_at

    def column(self, name):
        return pa.chunked_array([pa.array(self.columns[name])])


def rates(count: int, classes: list[float], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(classes), count, p=classes).astype(float)


def timed(count: int, seed: int = 0, took: int = 20) -> Rows:
    rng = np.random.default_rng(seed)
    start = 1_704_067_200_000_000  # 2024-01-01
    at = np.sort(rng.integers(start, start + 120 * DAY, count))
    return Rows(rates(count, [0.5, 0.5]), at=at, known_at=at + rng.integers(0, took * DAY, count))


def disjoint(parts: dict) -> np.ndarray:
    """All positions; an error if one is in two parts or not in order."""
    assert all((np.diff(part) > 0).all() for part in parts.values())
    every = np.concatenate(list(parts.values()))
    assert len(np.unique(every)) == len(every)
    return np.sort(every)


# definitions ----------------------------------------------------------------------------------------------------------


def test_versions_of_splits_in_time_stand():
    """The hash of a TimeSplit is that of the plain JSON it had before there were other splits."""
    body = b'{"kind":"TimeSplit","test":"1 month","train":"2013-01-01/2013-07-01","validate":"14d"}'
    assert content_hash(TimeSplit("2013-01-01/2013-07-01", "14d")) == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("split", EVERY, ids=lambda split: type(split).__name__)
def test_a_split_is_read_again_from_its_plain_form(split):
    """What a run keeps gives the same split, and the same version."""
    again = split_from_dict(split.describe())
    assert again == split
    assert content_hash(again) == content_hash(split)
    assert len({content_hash(other) for other in EVERY}) == len(EVERY)


def test_a_kind_of_split_that_there_is_not_has_near_names():
    """A run of a later version, say."""
    with pytest.raises(InputError, match="Did you mean the kind 'RandomSplit'"):
        split_from_dict({"kind": "RandonSplit"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomSplit(test=0.0), r"RandomSplit, test: a share .* above 0 and below 1; got 0.0"),
        (lambda: RandomSplit(validate=True), "above 0 and below 1; got True"),
        (lambda: HashSplit(by="id", test=0.6, validate=0.4), "must leave some to train on"),
        (lambda: RandomSplit(seed=-1), "a seed must be a whole number"),
        (lambda: GroupSplit(by=[]), "must name the columns"),
        (lambda: GroupSplit(by=["a", "a"]), "each once"),
        (lambda: HashSplit(by=7), "must name the columns"),
        (lambda: HashSplit(by="id", salt=7), "a salt must be text"),
        (lambda: Rolling(SPAN, folds=1), "two folds or more; got 1"),
        (lambda: Rolling(SPAN, window="3 fortnights"), "Rolling, window: a length must be"),
        (lambda: Purged(SPAN, folds=True), "two folds or more"),
        (lambda: Purged(SPAN, embargo="two days"), "an embargo must be a duration"),
    ],
)
def test_a_wrong_split_is_refused_where_it_is_written(make, message):
    """With the place, the value and the remedy."""
    with pytest.raises(DefinitionError, match=message):
        make()


# at random ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [[0.5, 0.5], [0.93, 0.07], [0.6, 0.3, 0.08, 0.02]])
def test_shares_of_the_classes_are_those_of_scikit_learn(classes):
    """Each part has each class as StratifiedShuffleSplit has it, to one row."""
    names = tuple(f"c{place}" for place in range(len(classes)))
    target = Target("multiclass", classes=names) if len(classes) > 2 else Target()
    labels = rates(1_000, classes)
    parts = RandomSplit(test=0.2, validate=0.1, seed=3).assign(Rows(labels, target=target), now=NOW)
    assert {name: len(part) for name, part in parts.items()} == {"train": 700, "validate": 100, "test": 200}
    assert len(disjoint(parts)) == 1_000
    _, test = next(StratifiedShuffleSplit(1, test_size=200, random_state=0).split(labels, labels))
    counts = [np.bincount(labels[part].astype(int), minlength=len(classes)) for part in (parts["test"], test)]
    assert np.abs(counts[0] - counts[1]).max() <= 1


def test_a_seed_gives_the_same_parts_and_another_one_others():
    """And unknown outcomes take part in none."""
    labels = rates(200, [0.5, 0.5])
    labels[:50] = np.nan
    rows = Rows(labels)
    first, again, other = (RandomSplit(seed=seed).assign(rows, now=NOW) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["test"], other["test"])
    assert disjoint(first).tolist() == list(range(50, 200))


@given(sizes=st.lists(st.integers(3, 40), min_size=2, max_size=6), share=st.floats(0.2, 0.4), seed=st.integers(0, 9))
def test_every_class_is_in_every_part(sizes, share, seed):
    """Down to three rows of a class, whatever the shares; nothing is lost."""
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(float)
    target = Target("multiclass", classes=tuple(f"c{place}" for place in range(len(sizes))))
    split = RandomSplit(test=share, validate=share, seed=seed)
    if round(share * len(labels)) < len(sizes):
        with pytest.raises(InputError, match="must have a row of every class"):
            split.assign(Rows(labels, target=target), now=NOW)
        return
    parts = split.assign(Rows(labels, target=target), now=NOW)
    assert len(disjoint(parts)) == len(labels)
    assert all(len(np.unique(labels[part])) == len(sizes) for part in parts.values())
    for name in ("test", "validate"):
        assert abs(len(parts[name]) - round(share * len(labels))) <= len(sizes)


def test_a_class_of_one_row_is_refused_by_its_name():
    """It cannot be in every part; without strata it goes where chance puts it."""
    labels = np.r_[np.zeros(20), np.ones(20), 2.0]
    rows = Rows(labels, target=Target("multiclass", classes=("a", "b", "rare")))
    with pytest.raises(InputError, match=r"3 rows of every class.*got \"1 labelled rows of the class 'rare'\""):
        RandomSplit().assign(rows, now=NOW)
    assert len(disjoint(RandomSplit(stratify=False).assign(rows, now=NOW))) == 41


def test_numbers_are_stratified_by_bins():
    """The quantiles of a skewed number are alike in all parts, closer than chance makes them."""
    labels = np.random.default_rng(0).lognormal(0, 2, 500)
    rows = Rows(labels, target=Target("regression"))
    spread = {}
    for stratify in (True, False):
        found = []
        for seed in range(20):
            parts = RandomSplit(seed=seed, stratify=stratify).assign(rows, now=NOW)
            found.append(np.quantile(labels[parts["test"]], [0.1, 0.5, 0.9]))
        spread[stratify] = np.std(np.log(found), axis=0)
    assert (spread[True] < 0.7 * spread[False]).all()


@pytest.mark.parametrize("split", [RandomSplit(stratify=False), GroupSplit(by="id"), HashSplit(by="id")])
def test_a_part_without_a_row_is_refused_with_the_numbers(split):
    """Two rows make no three parts."""
    with pytest.raises(InputError, match=r"every part of a split must have a labelled row; got \{'train': "):
        split.assign(Rows(np.array([0.0, 1.0]), {"id": [1, 2]}), now=NOW)


# groups and hashes ----------------------------------------------------------------------------------------------------


@given(
    groups=st.lists(st.integers(0, 12), min_size=40, max_size=90),
    seed=st.integers(0, 99),
    share=st.floats(0.1, 0.4),
    textual=st.booleans(),
)
def test_a_group_is_never_on_two_sides(groups, seed, share, textual):
    """In parts and in folds; and every labelled row is somewhere."""
    names = [f"g{group}" for group in groups] if textual else groups
    rows = Rows(np.zeros(len(groups)), {"g": names})
    split = GroupSplit(by="g", test=share, validate=share, seed=seed)
    keys = np.array(groups)
    try:
        parts = split.assign(rows, now=NOW)
    except InputError:
        assert len(set(groups)) <= 12
    else:
        assert len(disjoint(parts)) == len(groups)
        owners = [set(keys[part]) for part in parts.values()]
        assert sum(map(len, owners)) == len(set.union(*owners))
    if len(set(groups)) >= 3:
        judged = []
        for fit, judge in folds(split, rows, np.arange(len(groups)), 3):
            assert not set(keys[fit]) & set(keys[judge])
            judged += judge.tolist()
        assert sorted(judged) == list(range(len(groups)))


def test_folds_of_groups_are_as_even_as_those_of_scikit_learn():
    """The largest fold is no larger than GroupKFold's."""
    groups = np.random.default_rng(1).zipf(1.5, 2_000) % 60
    rows = Rows(np.zeros(2_000), {"g": groups})
    ours = max(len(judge) for _, judge in folds(GroupSplit(by="g"), rows, np.arange(2_000), 4))
    theirs = max(len(judge) for _, judge in GroupKFold(4).split(groups, groups=groups))
    assert ours == theirs


def test_parts_of_groups_have_about_their_shares():
    """Of 300 groups of all sizes."""
    groups = np.random.default_rng(1).geometric(0.01, 5_000)
    parts = GroupSplit(by="g", test=0.3, validate=0.1).assign(Rows(np.zeros(5_000), {"g": groups}), now=NOW)
    assert len(parts["test"]) == pytest.approx(1_500, abs=150)
    assert len(parts["validate"]) == pytest.approx(500, abs=150)


def side(split: HashSplit, keys: list) -> dict:
    """Part of each key, alone among rows of the world."""
    filler = [f"filler {number}" for number in range(200)]
    texts = pa.array([str(key) for key in keys] + filler)
    parts = split.assign(Rows(np.zeros(len(texts)), {"id": texts}), now=NOW)
    return {texts[int(row)].as_py(): name for name, part in parts.items() for row in part}


@given(keys=st.sets(st.integers(-(2**40), 2**40), max_size=30), more=st.sets(st.integers(), max_size=30))
def test_a_row_never_changes_side_when_data_grows(keys, more):
    """Nor in another order, nor with a larger share of the test."""
    split = HashSplit(by="id")
    before, after = side(split, sorted(keys)), side(split, sorted(keys | more, reverse=True))
    assert {key: after[key] for key in before} == before
    wider = side(HashSplit(by="id", test=0.35), sorted(keys))
    assert all(wider[key] == "test" for key, name in before.items() if name == "test")
    assert all(wider[key] == "validate" for key, name in before.items() if name == "validate")


@pytest.mark.parametrize(
    "column",
    [
        pa.array(range(400), pa.int64()), pa.array(range(400), pa.int16()), pa.array(range(400), pa.float64()),
        pa.array([str(number) for number in range(400)]), pa.array(map(str, range(400)), pa.large_string()),
        pa.array([str(number) for number in range(400)]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type)[:12],
)  # fmt: skip
def test_whole_and_textual_keys_are_alike(column):
    """And hold on every machine: the sides are those of SHA-256, computed here by hand."""
    parts = HashSplit(by="id", salt="s").assign(Rows(np.zeros(400), {"id": column}), now=NOW)
    for number in range(400):
        share = int(hashlib.sha256(f"1:s{number}".encode()).hexdigest()[:16], 16) / 2**64
        name = "test" if share < 0.2 else "validate" if share >= 0.8 else "train"
        assert number in parts[name]


def test_composite_keys_are_not_concatenated():
    """(1, 23) and (12, 3) are two keys: with plain concatenation all of these would be one."""
    rows = Rows(np.zeros(300), {"a": ["x" * n for n in range(300)], "b": ["x" * (300 - n) for n in range(300)]})
    parts = HashSplit(by=["a", "b"]).assign(rows, now=NOW)
    assert all(len(part) > 20 for part in parts.values())


@pytest.mark.parametrize("make", [GroupSplit, HashSplit])
@pytest.mark.parametrize(
    ("column", "message"),
    [([1, None, 3] * 9, "got '9 rows without one'"), ([0.5, 1.5, 2.5] * 9, "numbers with a fraction"),
     ([[1], [2], [3]] * 9, "list")],
)  # fmt: skip
def test_a_column_that_cannot_hold_rows_together_is_refused(make, column, message):
    """An unknown group is no group; fractions that print alike need not be equal."""
    with pytest.raises(InputError, match=message):
        make(by="id").assign(Rows(np.zeros(27), {"id": column}), now=NOW)


# folds ----------------------------------------------------------------------------------------------------------------


def test_folds_at_random_have_the_shares_of_scikit_learn():
    """Each class in each fold as StratifiedKFold has it, to one row."""
    labels = rates(503, [0.9, 0.1])
    ours = folds(RandomSplit(), Rows(labels), np.arange(503), 5)
    theirs = StratifiedKFold(5).split(labels, labels)
    assert sorted(np.concatenate([judge for _, judge in ours])) == list(range(503))
    for (fit, judge), (_, other) in zip(ours, theirs, strict=True):
        assert len(fit) + len(judge) == 503
        assert abs(labels[judge].sum() - labels[other].sum()) <= 1
    other = folds(RandomSplit(), Rows(labels), np.arange(503), 5, seed=1)
    assert not np.array_equal(ours[0][1], other[0][1])


@given(seed=st.integers(0, 999), count=st.integers(2, 6), embargo=st.integers(0, 9), took=st.integers(1, 50))
def test_no_fold_in_time_trains_on_an_outcome_that_overlaps_it(seed, count, embargo, took):
    """Against every pair of rows by brute force; nor, with an embargo, on what follows too soon."""
    rows = timed(60, seed, took)
    split = Purged(SPAN, embargo=f"{embargo}d") if embargo else TimeSplit(SPAN)
    positions = np.arange(5, 60)
    try:
        pairs = folds(split, rows, positions, count)
    except InputError:
        pairs = []  # all rows overlap
    for fit, judge in pairs:
        inside = positions[judge]
        first, last = rows.at[inside].min(), rows.known_at[inside].max() + embargo * DAY
        expected = [
            place for place, row in enumerate(positions) if rows.known_at[row] < first or rows.at[row] > last
        ]  # fmt: skip
        assert fit.tolist() == expected
        for row in positions[fit]:
            overlaps = (rows.at[inside] <= rows.known_at[row]) & (rows.at[row] <= rows.known_at[inside])
            assert not overlaps.any()


def test_rolling_folds_walk_forward():
    """Windows of a month that follow each other, each fitted on outcomes known before it, none on what came after."""
    rows = timed(4_000)
    split = Rolling(SPAN, validate="1 month", folds=3)
    positions = split.assign(rows, now=NOW)["train"]
    positions = np.arange(4_000)
    pairs = folds(split, rows, positions)
    months = [str(np.datetime64(int(rows.at[judge].min()), "us"))[:7] for _, judge in pairs]
    assert len(pairs) == 3
    assert months == sorted(set(months))
    for fit, judge in pairs:
        assert rows.known_at[fit].max() < rows.at[judge].min()
    sizes = [len(fit) for fit, _ in pairs]
    assert sizes == sorted(sizes)
    sliding = folds(Rolling(SPAN, validate="1 month", folds=3, window="30d"), rows, positions)
    for fit, judge in sliding:
        assert rows.at[judge].min() - rows.at[fit].min() <= 32 * DAY


def test_windows_without_rows_are_refused_with_their_number():
    """A year of windows on four months leaves too few that have rows before them."""
    rows = timed(300)
    with pytest.raises(InputError, match=r"Rolling, 3 folds of 300 rows: two folds or more must have rows.* got 1"):
        folds(Rolling(SPAN, validate="2 months", folds=3), rows, np.arange(300))


def test_nested_folds_choose_on_rows_that_they_do_not_judge():
    """The inner folds lie in the outer training rows, purged like them."""
    rows = timed(3_000)
    outer = nested_folds(Purged(SPAN, folds=4, embargo="1d"), rows, np.arange(3_000), inner=3)
    assert len(outer) == 4
    for fit, judge, inner in outer:
        for inner_fit, inner_judge in inner:
            assert set(inner_fit) | set(inner_judge) <= set(fit)
            assert not set(inner_judge) & set(judge)
            assert not ((rows.at[inner_judge].min() <= rows.known_at[inner_fit])
                        & (rows.at[inner_fit] <= rows.known_at[inner_judge].max())).any()  # fmt: skip


@pytest.mark.parametrize("split", EVERY, ids=lambda split: type(split).__name__)
def test_halves_share_nothing(split):
    """Earlier and later where there is time; whole groups where there are groups."""
    rows = timed(200)
    rows.columns["id"] = np.arange(200) // 2
    positions = np.arange(20, 200)
    first, second = halves(split, rows, positions)
    assert sorted([*first, *second]) == positions.tolist()
    assert min(len(first), len(second)) > 50
    if split.timed:
        assert rows.at[first].max() <= rows.at[second].min()
    elif not isinstance(split, RandomSplit):
        assert not set(first // 2) & set(second // 2)


# retraining -----------------------------------------------------------------------------------------------------------


def test_a_retraining_moves_splits_in_time_and_says_why_it_cannot_move_others():
    """A fold's settings go along; a hash needs no moving; what is drawn anew would judge on rows learned before."""
    instant = 1_717_200_000_000_000  # 2024-06-01
    assert Purged(SPAN, folds=4, embargo="2d").moved_to_end(instant) == Purged(
        "2024-01-01/2024-04-01", folds=4, embargo="2d"
    )
    assert Rolling(SPAN, window="30d").moved_to_end(instant) == Rolling("2024-01-01/2024-04-01", window="30d")
    assert HashSplit(by="id").moved_to_end(instant) == HashSplit(by="id")
    for split in (RandomSplit(), GroupSplit(by="id")):
        with pytest.raises(DefinitionError, match="judged on rows that the version before it learned from"):
            split.moved_to_end(instant)


def test_a_small_table_of_times_to_an_event_is_split_by_default():
    """Sixty rows, both with their event and without it in every part: no more strata than a number has."""
    labels = np.where(np.arange(60) % 3, 1.0, -1.0) * (1.0 + np.arange(60))
    parts = RandomSplit().assign(Rows(labels, target=Target("survival", horizons=("9d",))), now=NOW)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 36, "validate": 12, "test": 12}
    assert all({*np.sign(labels[rows])} == {-1.0, 1.0} for rows in parts.values())
