"""What the embedded keys do beyond their contract: a full map, growth, damage, one environment per process."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import ConfigurationError, IntegrityError, InternalError
from retrodict.stores.keys import lmdb as module
from retrodict.stores.keys.lmdb import LmdbKeys


def test_a_full_store_refuses_the_write_whole(tmp_path):
    """The error names map_size; what was there stays, and small writes and removals go on."""
    keys = LmdbKeys(tmp_path, map_size=1 << 18)
    keys.put_many({b"a": b"1"})
    with pytest.raises(ConfigurationError, match="map_size"):
        keys.put_many({b"k%d" % i: b"v" * 1000 for i in range(1000)})
    assert [key for key, _ in keys.scan(b"")] == [b"a"]
    keys.put_many({b"a": None, b"b": b"2"})
    assert keys.get_many([b"a", b"b"]) == [None, b"2"]
    keys.close()


def test_a_full_store_grows_by_opening_it_with_more(tmp_path):
    """The same folder with a larger map_size takes what did not fit."""
    items = {b"k%d" % i: b"v" * 1000 for i in range(1000)}
    small = LmdbKeys(tmp_path, map_size=1 << 18)
    with pytest.raises(ConfigurationError):
        small.put_many(items)
    small.close()
    large = LmdbKeys(tmp_path, map_size=1 << 24)
    large.put_many(items)
    assert large.get_many(list(items)) == list(items.values())
    large.close()


def test_the_map_costs_no_disk(tmp_path):
    """A store of 16 GiB with one key holds a few pages."""
    keys = LmdbKeys(tmp_path)
    keys.put_many({b"a": b"1"})
    assert sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir()) < 1 << 20
    keys.close()


def test_a_file_that_is_no_key_store_is_refused(tmp_path):
    """Garbage under the name of the data file is an IntegrityError that names the store."""
    (tmp_path / "data.mdb").write_bytes(os.urandom(16384))
    with pytest.raises(IntegrityError, match=f"key store {tmp_path.name}"):
        LmdbKeys(tmp_path)


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, name, make):
    """A FIFO would be waited for."""
    make(tmp_path / name)
    with pytest.raises(IntegrityError, match="must be of regular files"):
        LmdbKeys(tmp_path)


def test_objects_of_one_folder_share_one_environment(tmp_path):
    """Also through another spelling of the path; the last one to close releases it."""
    first = LmdbKeys(tmp_path / "keys", map_size=1 << 20)
    (tmp_path / "link").symlink_to(tmp_path / "keys")
    second = LmdbKeys(tmp_path / "link", map_size=1 << 20)
    assert first._shared is second._shared
    first.close()
    assert (tmp_path / "keys") in module._OPEN
    second.close()
    assert (tmp_path / "keys") not in module._OPEN


def test_a_write_inside_a_change_function_is_refused_at_once(tmp_path):
    """It would wait for itself forever; the update it is in stores nothing."""
    keys = LmdbKeys(tmp_path, map_size=1 << 20)
    with pytest.raises(InternalError, match="forever"):
        keys.update([b"a"], lambda _: keys.put_many({b"b": b"1"}))
    keys.put_many({b"c": b"1"})
    assert keys.get_many([b"a", b"b", b"c"]) == [None, None, b"1"]
    keys.close()


def test_slots_of_dead_readers_are_freed_on_opening(start, tmp_path):
    """A killed process that was in the middle of a scan leaves no reader behind."""
    script = (
        "import sys; from pathlib import Path; from retrodict.stores.keys.lmdb import LmdbKeys\n"
        "keys = LmdbKeys(Path(sys.argv[1]), map_size=1 << 20); keys.put_many({b'a': b'1', b'b': b'2'})\n"
        "scan = keys.scan(b''); next(scan); print('ready', flush=True); sys.stdin.readline()"
    )
    reader = start(script, tmp_path)
    assert reader.line() == "ready"
    reader.kill()
    keys = LmdbKeys(tmp_path, map_size=1 << 20)
    assert str(reader.pid) not in keys._shared.env.readers()
    keys.close()


def test_what_is_lent_is_of_one_state_and_nothing_of_a_closed_store(tmp_path):
    """A write in the middle of reading does not show; a store that was closed lends nothing."""
    keys = LmdbKeys(tmp_path)
    keys.put_many({b"a": b"1" * 5000})
    with keys.reading() as get:
        first = bytes(get(b"a"))
        keys.put_many({b"a": b"2", b"b": b"3"})
        assert (first, bytes(get(b"a")), get(b"b")) == (b"1" * 5000, b"1" * 5000, None)
    keys.close()
    with pytest.raises(InternalError, match="a key store must not be used after it was closed"), keys.reading():
        pass


@pytest.mark.parametrize(("least", "most"), [(200, 900), (1400, 1900)])
def test_items_that_come_in_order_fill_their_pages(tmp_path, least, most):
    """Before a key that is there LMDB would leave pages half empty, and of large values one on each."""
    keys, rng = LmdbKeys(tmp_path / "keys"), random.Random(3)
    items = {b"key%06d" % place: rng.randbytes(rng.randrange(least, most)) for place in range(6000)}
    keys.put_many({b"z": b"after all others"})
    names = list(items)
    for first in range(0, len(names), 1000):
        keys.put_many({name: items[name] for name in names[first : first + 1000]}, durable=False)
    assert dict(keys.scan(b"key")) == items
    keys.close()
    held = sum(len(name) + len(value) for name, value in items.items())
    assert (tmp_path / "keys" / "data.mdb").stat().st_size < 1.3 * held


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 60), st.integers(0, 5000) | st.none(), max_size=40), max_size=6))
def test_what_is_put_is_what_is_there_however_pages_are_filled(writes):
    """Items among others, in place of others and removed, of any size."""
    with tempfile.TemporaryDirectory() as folder:
        keys, expected = LmdbKeys(Path(folder)), {}
        for number, write in enumerate(writes):
            items = {b"%04d" % key: None if n is None else bytes([number]) * n for key, n in write.items()}
            keys.put_many(items, durable=False)
            expected = {key: value for key, value in (expected | items).items() if value is not None}
        assert dict(keys.scan(b"")) == expected
        keys.close()


def test_the_number_of_a_state_changes_with_each_write_of_whichever_process(tmp_path):
    """What is held of a store that gives the number again is what is in it."""
    keys = LmdbKeys(tmp_path)
    keys.put_many({b"a": b"1"})
    first = keys.get_revised([b"a", b"b"])
    assert first == keys.get_revised([b"a", b"b"]) == (first[0], [b"1", None])
    code = "import sys; from pathlib import Path; from retrodict.stores.keys.lmdb import LmdbKeys as Keys; "
    subprocess.run(
        [sys.executable, "-c", code + "Keys(Path(sys.argv[1])).put_many({b'b': b'2'})", tmp_path], check=True
    )
    second = keys.get_revised([b"a", b"b"])
    assert second[1] == [b"1", b"2"]
    keys.put_many({b"a": b"1"})
    assert first[0] < second[0] < keys.get_revised([])[0]
    keys.close()


REFUSED = """
import resource, signal, sys
from pathlib import Path
from retrodict.core.errors import RetryableError
from retrodict.stores.keys.lmdb import LmdbKeys

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
opened = LmdbKeys(Path(sys.argv[1]) / "opened")
opened.put_many({b"a": b"1"})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for write in (
    lambda: opened.put_many({b"k%d" % n: bytes(1000) for n in range(100)}),
    lambda: LmdbKeys(Path(sys.argv[1]) / "new"),
):
    try:
        write()
    except RetryableError as error:
        print(error.got)
print(opened.get_many([b"a", b"k1"]))
"""


def test_a_disk_that_takes_no_more_is_told_and_kills_nobody(tmp_path):
    """A write and an opening are refused as something to try again; what was there is read."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:3] == ["Error", "OSError", "[b'1', None]"]


def test_mapped_pages_are_on_disk(tmp_path):
    """A hole in the table of readers would kill its process where the disk is full."""
    keys = LmdbKeys(tmp_path)
    status = (tmp_path / "lock.mdb").stat()
    assert status.st_blocks * 512 >= status.st_size >= 1 << 16
    keys.close()


def test_a_store_that_was_cut_off_is_an_error_and_no_death(tmp_path):
    """What lies beyond the end of the file is damage, where a read of it would kill the process."""
    items = {b"k%04d" % number: bytes(100) for number in range(1000)}
    keys = LmdbKeys(tmp_path)
    keys.put_many(items)
    keys.check_length()
    keys.close()
    os.truncate(tmp_path / "data.mdb", 1 << 14)
    keys = LmdbKeys(tmp_path)
    with pytest.raises(IntegrityError, match="as long as its pages"):
        keys.check_length()
    with pytest.raises(IntegrityError):
        keys.get_many(list(items))
    keys.close()


def test_a_store_whose_folder_was_removed_no_longer_stands(tmp_path):
    """Whoever has it open goes on with what is gone; opened again it is a new one, for both."""
    folder = tmp_path / "keys"
    keys = LmdbKeys(folder)
    keys.put_many({b"a": b"1"})
    assert keys.stands()
    shutil.rmtree(folder)
    assert not keys.stands()
    again = LmdbKeys(folder)
    assert (again.stands(), keys.stands()) == (True, False)
    assert (again.get_many([b"a"]), keys.get_many([b"a"])) == ([None], [b"1"])
    keys.close()
    third = LmdbKeys(folder)
    again.put_many({b"a": b"2"})
    assert third.get_many([b"a"]) == [b"2"]
    again.close()
    third.close()
