"""Updates of the embedded key store decide without the lock, and still lose nothing."""

import threading

from retrodict.stores.keys.lmdb import LmdbKeys


def test_updates_of_different_keys_decide_at_the_same_time(tmp_path):
    """Two change functions wait for one another: with a lock around them they would never meet."""
    keys, both = LmdbKeys(tmp_path), threading.Barrier(2, timeout=20)

    def update(name):
        def change(_):
            both.wait()
            return {name: b"1"}

        keys.update([name], change)

    threads = [threading.Thread(target=update, args=(name,), daemon=True) for name in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys.get_many([b"a", b"b"]) == [b"1", b"1"]
    keys.close()


def test_an_update_of_a_key_that_others_keep_changing_ends(tmp_path):
    """After a few decisions in vain it holds the lock; what it stores rests on what is there then."""
    keys, seen = LmdbKeys(tmp_path), []
    keys.put_many({b"a": b"0"})

    def change(values):
        seen.append(values[0])
        if len(seen) < 4:  # without the lock: somebody else is faster
            other = threading.Thread(target=keys.put_many, args=({b"a": str(len(seen)).encode()},), daemon=True)
            other.start()
            other.join()
        return {b"a": values[0] + b"!"}

    keys.update([b"a"], change)
    assert seen == [b"0", b"1", b"2", b"3"]
    assert keys.get_many([b"a"]) == [b"3!"]
    keys.close()


def test_another_write_in_between_that_touches_nothing_read_costs_no_second_decision(tmp_path):
    """What was read still stands, so the first decision is stored."""
    keys, runs = LmdbKeys(tmp_path), []

    def change(_):
        runs.append(1)
        other = threading.Thread(target=keys.put_many, args=({b"b": b"1"},), daemon=True)
        other.start()
        other.join()
        return {b"a": b"1"}

    keys.update([b"a"], change)
    assert (runs, keys.get_many([b"a", b"b"])) == ([1], [b"1", b"1"])
    keys.close()
