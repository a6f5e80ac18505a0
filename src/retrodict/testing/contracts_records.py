"""Contract suite of the record stores: subclass it, override ``reopen``, and every promise is tested.

``reopen`` opens the same store with a time limit for writers of at most two seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from retrodict.core.errors import BusyError, RetrodictError
from retrodict.stores.records.base import RecordStore

__all__ = ["RecordsContract"]

_META = sa.MetaData()
_NOTES = sa.Table(
    "notes", _META, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String(50), nullable=False)
)
_TAGS = sa.Table(
    "tags", _META, sa.Column("note", sa.ForeignKey("notes.id"), nullable=False), sa.Column("tag", sa.String(50))
)


def _count(store: RecordStore) -> int:
    with store.read() as state:
        return int(state.execute(sa.select(sa.func.count()).select_from(_NOTES)).scalar_one())


def _add(store: RecordStore, text: str = "a") -> None:
    with store.write() as change:
        change.execute(_NOTES.insert().values(text=text))


def _add_and_fail(store: RecordStore) -> None:
    with store.write() as change:
        change.execute(_NOTES.insert().values(text="a"))
        raise ZeroDivisionError


def _run(*targets: Callable[[], None]) -> None:
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


class RecordsContract:
    """What every :class:`~retrodict.stores.records.base.RecordStore` does."""

    @pytest.fixture
    def reopen(self) -> Callable[[], RecordStore]:
        """Open the store under test (empty at first), each time as another process would."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, reopen: Callable[[], RecordStore]) -> Iterator[RecordStore]:
        """Give the store under test with two tables in it."""
        store = reopen()
        store.ensure(_META)
        yield store
        store.close()

    def test_a_write_is_kept(self, store: RecordStore, reopen: Callable[[], RecordStore]) -> None:
        """What a block wrote is there for another process."""
        _add(store, "kept")
        other = reopen()
        with other.read() as state:
            assert state.execute(sa.select(_NOTES.c.text)).scalars().all() == ["kept"]
        other.close()

    def test_an_exception_leaves_nothing_behind(self, store: RecordStore) -> None:
        """A block that raises is undone whole, and the exception comes through unchanged."""
        with pytest.raises(ZeroDivisionError):
            _add_and_fail(store)
        assert _count(store) == 0

    def test_a_broken_constraint_leaves_nothing_behind(self, store: RecordStore) -> None:
        """Foreign keys are enforced; the library's own error reaches the room that knows its tables."""

        def add_lone_tag() -> None:
            with store.write() as change:
                change.execute(_NOTES.insert().values(text="a"))
                change.execute(_TAGS.insert().values(note=77, tag="x"))

        with pytest.raises(sa.exc.IntegrityError):
            add_lone_tag()
        assert _count(store) == 0

    def test_a_read_block_sees_one_state(self, store: RecordStore, reopen: Callable[[], RecordStore]) -> None:
        """A commit in the middle of a read block is not seen by it, from its first line on, and is afterwards."""
        other = reopen()
        with store.read() as state:
            _add(other)
            counts = [state.execute(sa.select(sa.func.count()).select_from(_NOTES)).scalar_one() for _ in range(2)]
        assert counts == [0, 0]
        assert _count(store) == 1
        other.close()

    def test_a_read_block_changes_nothing(self, store: RecordStore) -> None:
        """Writing in a read block is refused."""
        with pytest.raises(RetrodictError, match=r"read\(\) block"), store.read() as state:
            state.execute(_NOTES.insert().values(text="a"))
        assert _count(store) == 0

    def test_readers_do_not_wait_for_a_writer(self, store: RecordStore) -> None:
        """While a block writes, another thread reads the state before it."""
        seen: list[int] = []
        with store.write() as change:
            change.execute(_NOTES.insert().values(text="a"))
            _run(lambda: seen.append(_count(store)))
        assert seen == [0]

    def test_read_decide_write_is_one_step(self, reopen: Callable[[], RecordStore], store: RecordStore) -> None:
        """Four writers that each read the highest number and write the next lose none of forty steps."""

        def step(opened: RecordStore) -> None:
            for _ in range(10):
                with opened.write() as change:
                    highest = change.execute(sa.select(sa.func.coalesce(sa.func.max(_NOTES.c.id), 0))).scalar_one()
                    change.execute(_NOTES.insert().values(id=highest + 1, text="a"))

        others = [reopen() for _ in range(2)]
        _run(*(lambda opened=opened: step(opened) for opened in (store, store, *others)))
        assert _count(store) == 40
        for other in others:
            other.close()

    def test_a_second_writer_gets_busy(self, store: RecordStore, reopen: Callable[[], RecordStore]) -> None:
        """Within a thread of this object and from another process, the wait ends with BusyError."""
        other = reopen()
        caught: list[BaseException] = []

        def attempt(opened: RecordStore) -> None:
            try:
                _add(opened)
            except BusyError as error:
                caught.append(error)

        with store.write() as change:
            change.execute(_NOTES.insert().values(text="a"))
            _run(lambda: attempt(store), lambda: attempt(other))
        assert [type(error) for error in caught] == [BusyError, BusyError]
        assert _count(store) == 1
        other.close()

    def test_a_nested_write_is_refused_at_once(self, store: RecordStore) -> None:
        """A write block inside a write block of the same thread is an error, not a wait for itself."""
        with pytest.raises(RetrodictError, match="nest"), store.write(), store.write():
            pass
        _add(store)
        assert _count(store) == 1

    def test_the_counter_moves_with_every_commit(self, store: RecordStore, reopen: Callable[[], RecordStore]) -> None:
        """It differs after a commit of this object and of another process, and stays when nothing was committed."""
        other = reopen()
        seen = [store.change_counter(), store.change_counter()]
        _add(store)
        seen.append(store.change_counter())
        _add(other)
        seen.append(store.change_counter())
        with pytest.raises(ZeroDivisionError):
            _add_and_fail(store)
        seen.append(store.change_counter())
        assert seen[0] == seen[1]
        assert len(set(seen[1:4])) == 3
        assert seen[3] == seen[4]
        other.close()

    def test_ensure_twice_changes_nothing(self, store: RecordStore, reopen: Callable[[], RecordStore]) -> None:
        """Tables with rows stay as they are, and new ones are added beside them."""
        _add(store)
        more = sa.MetaData()
        sa.Table("notes", more, sa.Column("id", sa.Integer, primary_key=True))
        later = sa.Table("later", more, sa.Column("x", sa.Integer))
        other = reopen()
        other.ensure(_META)
        other.ensure(more)
        with other.read() as state:
            assert state.execute(sa.select(sa.func.count()).select_from(later)).scalar_one() == 0
        assert _count(store) == 1
        other.close()

    def test_many_openers_make_the_tables_once(self, reopen: Callable[[], RecordStore]) -> None:
        """Six that open and ensure the same tables at once all succeed."""
        done: list[bool] = []

        def begin() -> None:
            opened = reopen()
            opened.ensure(_META)
            _add(opened)
            opened.close()
            done.append(True)

        _run(*[begin] * 6)
        opened = reopen()
        assert (len(done), _count(opened)) == (6, 6)
        opened.close()

    def test_a_closed_store_says_so(self, reopen: Callable[[], RecordStore]) -> None:
        """Use after close is an error of ours, closing twice is none."""
        opened = reopen()
        opened.close()
        opened.close()
        with pytest.raises(RetrodictError, match="closed"), opened.read():
            pass
