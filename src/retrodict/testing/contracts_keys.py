"""Contract suite of the key stores: subclass it, override ``reopen``, and every promise is tested."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

import pytest

from retrodict.core.errors import InputError, RetrodictError
from retrodict.stores.keys.base import KeyStore

__all__ = ["KeysContract"]


class KeysContract:
    """What every :class:`~retrodict.stores.keys.base.KeyStore` does."""

    @pytest.fixture
    def reopen(self) -> Callable[[], KeyStore]:
        """Open the store under test (empty at first), each time anew."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, reopen: Callable[[], KeyStore]) -> Iterator[KeyStore]:
        """Give the store under test."""
        store = reopen()
        yield store
        store.close()

    def test_values_come_in_the_order_of_the_keys(self, store: KeyStore) -> None:
        """Present, missing, repeated and empty-valued keys, in the order asked for."""
        store.put_many({b"a": b"1", b"b": b"", b"\x00\xff": b"\x00"})
        assert store.get_many([b"b", b"x", b"a", b"\x00\xff", b"a"]) == [b"", None, b"1", b"\x00", b"1"]
        assert store.get_many([]) == []

    def test_a_later_value_replaces_and_none_removes(self, store: KeyStore) -> None:
        """The newest value wins; removing what is not there is no error."""
        store.put_many({b"a": b"1", b"b": b"1"})
        store.put_many({b"a": b"2", b"b": None, b"never": None})
        assert store.get_many([b"a", b"b", b"never"]) == [b"2", None, None]

    @pytest.mark.parametrize("durable", [True, False])
    def test_a_write_is_there_after_reopening(
        self, store: KeyStore, reopen: Callable[[], KeyStore], durable: bool
    ) -> None:
        """Durable or not, a write outlives the object that made it."""
        store.put_many({b"a": b"1"}, durable=durable)
        store.update([b"a"], lambda values: {b"b": values[0]}, durable=durable)
        store.close()
        other = reopen()
        assert other.get_many([b"a", b"b"]) == [b"1", b"1"]
        other.close()

    @pytest.mark.parametrize("key", [b"", b"k" * 512])
    def test_a_key_has_1_to_511_bytes(self, store: KeyStore, key: bytes) -> None:
        """Another length is refused by every call, and a write with it stores nothing at all."""
        with pytest.raises(InputError, match="511"):
            store.put_many({b"a": b"1", key: b"1"})
        with pytest.raises(InputError, match="511"):
            store.update([b"a"], lambda _: {b"a": b"1", key: b"1"})
        with pytest.raises(InputError, match="511"):
            store.get_many([b"a", key])
        assert store.get_many([b"a"]) == [None]

    def test_the_longest_key_and_a_long_value(self, store: KeyStore) -> None:
        """511 bytes of key and a megabyte of value are stored whole."""
        store.put_many({b"k" * 511: b"v" * 1_000_000})
        assert store.get_many([b"k" * 511]) == [b"v" * 1_000_000]

    def test_a_scan_goes_bytewise_within_its_prefix(self, store: KeyStore) -> None:
        """Order is that of bytes, the prefix bounds it at both ends, and ``start`` begins inside."""
        keys = [b"a", b"a\x00", b"a\x00\x01", b"a\xff", b"a\xff\xff", b"b", b"B"]
        store.put_many({key: key for key in keys})
        under = [key for key in sorted(keys) if key.startswith(b"a")]
        assert list(store.scan(b"a")) == [(key, key) for key in under]
        assert list(store.scan(b"a\xff")) == [(b"a\xff", b"a\xff"), (b"a\xff\xff", b"a\xff\xff")]
        assert [key for key, _ in store.scan(b"a", start=b"a\x00\x01")] == under[2:]
        assert [key for key, _ in store.scan(b"a", start=b"A")] == under
        assert list(store.scan(b"a", start=b"b")) == []
        assert [key for key, _ in store.scan(b"")] == sorted(keys)
        assert list(store.scan(b"none")) == []

    def test_a_scan_sees_one_state(self, store: KeyStore) -> None:
        """Writes during the iteration are not part of it."""
        store.put_many({b"%03d" % i: b"old" for i in range(200)})
        seen = []
        for place, (_, value) in enumerate(store.scan(b"")):
            if place == 10:
                store.put_many({b"%03d" % i: b"new" for i in range(400)})
            seen.append(value)
        assert seen == [b"old"] * 200

    def test_an_update_decides_on_what_it_reads(self, store: KeyStore) -> None:
        """Values arrive in the order of the keys, and any keys may be returned, removed or left."""
        store.put_many({b"a": b"1", b"b": b"2"})

        def swap(values: list[bytes | None]) -> Mapping[bytes, bytes | None]:
            assert values == [b"2", None, b"1"]
            return {b"a": None, b"new": b"3"}

        store.update([b"b", b"none", b"a"], swap)
        assert store.get_many([b"a", b"b", b"new"]) == [None, b"2", b"3"]

    def test_an_update_that_raises_stores_nothing(self, store: KeyStore) -> None:
        """The exception comes through, and the next write goes on."""

        def fail(_: list[bytes | None]) -> Mapping[bytes, bytes | None]:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.update([b"a"], fail)
        store.put_many({b"b": b"1"})
        assert store.get_many([b"a", b"b"]) == [None, b"1"]

    def test_updates_in_threads_lose_no_step(self, store: KeyStore) -> None:
        """Four threads that each add one fifty times to two keys: no step is lost."""

        def add(values: list[bytes | None]) -> Mapping[bytes, bytes | None]:
            after = b"%d" % (int(values[0] or b"0") + 1)
            return {b"x": after, b"y": after}

        def run() -> None:
            for _ in range(50):
                store.update([b"x"], add, durable=False)

        threads = [threading.Thread(target=run, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.get_many([b"x", b"y"]) == [b"200", b"200"]

    def test_a_reader_never_sees_half_a_write(self, store: KeyStore) -> None:
        """While two keys are always written together, no read finds them different."""
        store.put_many({b"x": b"0", b"y": b"0"})
        stop = threading.Event()
        torn: list[list[bytes | None]] = []

        def watch() -> None:
            while not stop.is_set():
                values = store.get_many([b"x", b"y"])
                if values[0] != values[1]:
                    torn.append(values)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        for i in range(300):
            store.put_many({b"x": b"%d" % i, b"y": b"%d" % i}, durable=False)
        stop.set()
        thread.join()
        assert torn == []

    def test_the_store_may_be_opened_twice(self, store: KeyStore, reopen: Callable[[], KeyStore]) -> None:
        """Two objects of one process see each other's writes, and closing one leaves the other usable."""
        other = reopen()
        other.put_many({b"a": b"1"})
        assert store.get_many([b"a"]) == [b"1"]
        other.close()
        store.put_many({b"b": b"2"})
        assert store.get_many([b"a", b"b"]) == [b"1", b"2"]

    def test_a_closed_store_says_so(self, reopen: Callable[[], KeyStore]) -> None:
        """Use after close is an error of ours, closing twice is none."""
        keys = reopen()
        keys.close()
        keys.close()
        for call in (lambda: keys.get_many([b"a"]), lambda: keys.put_many({b"a": b"1"}), lambda: list(keys.scan(b""))):
            with pytest.raises(RetrodictError, match="closed"):
                call()
