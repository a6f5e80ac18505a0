"""Contract suite of the object stores: subclass it, override ``reopen`` and ``alter``, and every promise is tested."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import pytest

from retrodict.core.errors import InputError, IntegrityError, NotFoundError
from retrodict.stores.objects.base import ObjectStore

__all__ = ["ObjectsContract"]


class ObjectsContract:
    """What every :class:`~retrodict.stores.objects.base.ObjectStore` does."""

    @pytest.fixture
    def reopen(self) -> Callable[[], ObjectStore]:
        """Open the store under test (empty at first), each time as another process would."""
        raise NotImplementedError

    @pytest.fixture
    def alter(self) -> Callable[[str, bytes], None]:
        """Replace the stored bytes of a digest behind the back of the store."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, reopen: Callable[[], ObjectStore]) -> ObjectStore:
        """Give the store under test."""
        return reopen()

    @pytest.mark.parametrize("data", [b"", b"a", bytes(range(256)) * 5000])
    def test_bytes_come_back(self, store: ObjectStore, reopen: Callable[[], ObjectStore], data: bytes) -> None:
        """The name is the SHA-256 of the bytes, and another process gets them by it."""
        digest = store.put(data)
        assert digest == hashlib.sha256(data).hexdigest()
        assert reopen().get(digest) == data
        assert reopen().exists(digest)

    def test_the_same_bytes_are_stored_once(self, store: ObjectStore) -> None:
        """A second put is no second object."""
        assert store.put(b"a") == store.put(b"a")
        assert len(list(store.digests())) == 1

    def test_what_was_never_put_is_not_found(self, store: ObjectStore) -> None:
        """The message names the digest."""
        with pytest.raises(NotFoundError, match="0" * 64):
            store.get("0" * 64)
        assert not store.exists("0" * 64)

    @pytest.mark.parametrize("digest", ["", "abc", "../" + "a" * 61, "G" * 64, "A" * 64, "0" * 64 + "\n"])
    def test_a_bad_digest_is_refused(self, store: ObjectStore, digest: str) -> None:
        """What is not 64 lower-case hex digits never becomes a path."""
        with pytest.raises(InputError, match="64 lower-case hex digits"):
            store.get(digest)

    @pytest.mark.parametrize("altered", [b"", b"contenT", b"content "])
    def test_altered_bytes_are_never_returned(
        self, store: ObjectStore, alter: Callable[[str, bytes], None], altered: bytes
    ) -> None:
        """Get names the object in an IntegrityError instead; exists still says it is there."""
        digest = store.put(b"content")
        alter(digest, altered)
        with pytest.raises(IntegrityError, match=digest):
            store.get(digest)
        assert store.exists(digest)

    def test_putting_again_heals(self, store: ObjectStore, alter: Callable[[str, bytes], None]) -> None:
        """The same bytes put again replace an altered copy."""
        digest = store.put(b"content")
        alter(digest, b"damaged")
        store.put(b"content")
        assert store.get(digest) == b"content"

    def test_digests_are_sorted(self, store: ObjectStore) -> None:
        """Every object is listed once, in order; an empty store lists none."""
        assert list(store.digests()) == []
        digests = [store.put(b"%d" % i) for i in range(50)]
        assert list(store.digests()) == sorted(digests)

    def test_many_threads_put_the_same_objects(self, store: ObjectStore) -> None:
        """Whoever comes first, every object is whole."""
        data = [b"%d" % i * 1000 for i in range(20)]

        def put_all() -> None:
            for one in data:
                store.put(one)

        threads = [threading.Thread(target=put_all, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(store.get(digest) for digest in store.digests()) == sorted(data)
