"""Keys in Redis: the contract, and what a server adds to it: restarts, refusals, other users, other writers."""

import contextlib
import os
import signal
import threading
import time
import traceback
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stores.redis_server import Between, RedisServer, free_port, make_certificate

from retrodict.core.errors import (
    ConfigurationError,
    IntegrityError,
    RetrodictError,
    RetryableError,
)
from retrodict.stores.keys.redis import RedisKeys
from retrodict.stores.urls import open_keys
from retrodict.testing.contracts_keys import KeysContract

ADD = """
import sys
from retrodict.stores.keys.redis import RedisKeys
keys = RedisKeys(sys.argv[1])
def add(values):
    return {b"total": b"%d" % (int(values[0] or b"0") + 1)}
for _ in range(int(sys.argv[2])):
    keys.update([b"total"], add)
"""

PUT = """
import sys
from retrodict.stores.keys.redis import RedisKeys
keys, name = RedisKeys(sys.argv[1]), sys.argv[2].encode()
def change(values):
    text = b"%d" % (int(values[0] or b"0") + 1)
    return {name: text, **{b"%s copy %03d" % (name, i): text * 20 for i in range(100)}}
while True:
    keys.update([name], change)
    print(int(keys.get_many([name])[0]), flush=True)
"""

FORK = """
import os, sys
from retrodict.stores.keys.redis import RedisKeys
keys = RedisKeys(sys.argv[1])
keys.put_many({b"a": b"1"})
if not os.fork():
    try:
        keys.get_many([b"a"])
    except RuntimeError as error:
        print(error, flush=True)
    keys.close()
    sys.exit()
os.wait()
print(keys.get_many([b"a"]), "in", keys._server._pool.get_connection_count()[0][0], "connection", flush=True)
"""

WITHOUT = """
import sys
from pathlib import Path
from retrodict.stores import urls
print("redis" in sys.modules, flush=True)
sys.modules["redis"] = None
try:
    urls.open_keys("redis://127.0.0.1", Path("."))
except ImportError as error:
    print(error, flush=True)
"""


@pytest.fixture(scope="module")
def server():
    """Give one server for the tests that leave it as it is; each has a prefix of its own."""
    with contextlib.closing(RedisServer()) as running:
        yield running


@pytest.fixture
def own_server():
    """Start servers that a test may stop, restart and set as it likes."""
    with contextlib.ExitStack() as stack:
        yield lambda *options: stack.enter_context(contextlib.closing(RedisServer(*options)))


@pytest.fixture
def url(server):
    """Address of an empty store in the shared server."""
    return server.url(uuid.uuid4().hex)


@pytest.fixture
def opened():
    """Open stores that are closed with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(contextlib.closing(RedisKeys(url, **options)))


class TestRedisKeys(KeysContract):
    """The promises of every key store."""

    @pytest.fixture
    def reopen(self, url, tmp_path):
        return lambda: open_keys(url, tmp_path)


def test_the_promises_hold_in_a_cluster_of_one_node(own_server, opened):
    """All names of a store lie in one slot, so commands with many keys are allowed."""
    server = own_server("--cluster-enabled", "yes", "--cluster-port", free_port())
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            time.sleep(0.05)
    keys = opened(server.url("shop"))
    keys.put_many({b"a": b"1", b"b": b"2"})
    keys.update([b"a", b"c"], lambda values: {b"c": values[0], b"a": None})
    assert list(keys.scan(b"")) == [(b"b", b"2"), (b"c", b"1")]


def test_a_store_is_reached_through_a_socket(server, opened):
    """The path of the socket, the database as an option."""
    prefix = uuid.uuid4().hex
    opened(f"unix://{server.socket}?db=0&prefix={prefix}").put_many({b"a": b"1"})
    assert opened(server.url(prefix)).get_many([b"a"]) == [b"1"]


def test_a_store_is_reached_through_tls(own_server, opened, tmp_path, monkeypatch):
    """The certificate is checked: without trust in it there is no connection."""
    certificate, key = make_certificate(tmp_path)
    port = free_port()
    files = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no")
    own_server("--tls-port", port, *files)
    with pytest.raises(RetryableError, match="no connection"):
        opened(f"rediss://127.0.0.1:{port}/0")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    keys = opened(f"rediss://127.0.0.1:{port}/0")
    keys.put_many({b"a": b"1"})
    assert keys.get_many([b"a"]) == [b"1"]


items = st.dictionaries(
    st.binary(min_size=1, max_size=3).map(lambda key: key.translate(bytes([0, 97, 254, 255] * 64))),
    st.none() | st.binary(max_size=3),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(items, max_size=5), prefix=st.sampled_from([b"", b"a", b"\xff", b"a\xff", b"\xff\xff", b"\0"]))
def test_any_writes_leave_what_a_dict_would_hold(server, steps, prefix):
    """Values, the index and every scan agree with a dictionary that took the same writes."""
    keys, model = RedisKeys(server.url(uuid.uuid4().hex)), {}
    for number, step in enumerate(steps):
        if number % 2:
            keys.update(list(step), lambda values, step=step: step)
        else:
            keys.put_many(step)
        model = {key: value for key, value in (model | step).items() if value is not None}
        assert list(keys.scan(prefix)) == sorted(item for item in model.items() if item[0].startswith(prefix))
        assert dict(keys.scan(b"", start=b"a")) == {key: value for key, value in model.items() if key >= b"a"}
    keys.close()


def test_stores_with_other_prefixes_see_nothing_of_each_other(server, opened):
    """Also where one prefix begins like another, or holds what Redis or a URL would take for its own."""
    prefixes = ["shop", "shop:a", "shop%7D%3Aa", "%7Bshop%7D", "a%26b", "ü", "*"]
    stores = [opened(server.url(f"{prefix}")) for prefix in prefixes]
    for number, store in enumerate(stores):
        store.put_many({b"a": b"%d" % number, b"a}": b"x", b"}:a": b"x"})
    for number, store in enumerate(stores):
        assert list(store.scan(b"")) == [(b"a", b"%d" % number), (b"a}", b"x"), (b"}:a", b"x")]


def test_databases_are_apart(server, opened):
    """The number behind the host is the database; one that is not there is refused."""
    url = server.url(uuid.uuid4().hex)
    opened(url).put_many({b"a": b"1"})
    assert opened(url.replace("/0?", "/1?")).get_many([b"a"]) == [None]
    with pytest.raises(ConfigurationError, match="must have the database of this number"):
        opened(url.replace("/0?", "/999?"))


def test_one_read_is_one_command(server, url, opened):
    """Whatever the number of keys."""
    keys = opened(url)
    with server.client() as client:
        before = client.info("stats")["total_commands_processed"]
        keys.get_many([b"%d" % i for i in range(5000)])
        assert client.info("stats")["total_commands_processed"] - before == 2  # the read, and the question before


def test_many_thousand_keys_are_one_write(url, opened):
    """An update of 20,000 keys, and a removal of as many, are whole; Lua takes 8,000 arguments at once."""
    keys, names = opened(url), [b"%05d" % i for i in range(20_000)]
    keys.put_many(dict.fromkeys(names, b"1"))
    keys.update(names, lambda values: {n: v + b"2" for n, v in zip(names, values, strict=True)})
    assert list(keys.scan(b"")) == [(name, b"12") for name in names]
    keys.put_many(dict.fromkeys(names))
    assert list(keys.scan(b"")) == []


@pytest.mark.parametrize(("first", "other"), [(b"1", b"2"), (b"1", None), (None, b"1"), (b"", None), (None, b"")])
def test_an_update_decides_again_when_another_writer_was_faster(url, opened, first, other):
    """A value that was changed, emptied or removed meanwhile; one that is only written beside does not count."""
    keys, seen = opened(url), []
    keys.put_many({b"a": first})

    def change(values):
        seen.append(values[0])
        if len(seen) == 1:
            keys.put_many({b"a": other, b"beside": b"x"})
        elif len(seen) == 2:
            keys.put_many({b"beside": b"y"})
        return {b"b": values[0]}

    keys.update([b"a", b"never"], change)
    assert seen == [first, other]
    assert keys.get_many([b"b"]) == [other]


def test_an_update_gives_up_after_its_time(url, opened):
    """Values that change with every attempt end in an error, and nothing is stored."""
    keys = opened(url, timeout_s=0.2)

    def change(values):
        keys.put_many({b"a": uuid.uuid4().bytes})
        return {b"b": b"1"}

    with pytest.raises(RetryableError, match="kept changing"):
        keys.update([b"a"], change)
    assert keys.get_many([b"b"]) == [None]


def test_a_change_cannot_alter_what_is_compared(url, opened):
    """The function may do to its list what it likes."""
    keys = opened(url)
    keys.put_many({b"a": b"1"})
    keys.update([b"a"], lambda values: {b"a": values.pop() + b"2"})
    assert keys.get_many([b"a"]) == [b"12"]


def test_processes_that_update_one_key_lose_no_step(start, url, opened):
    """Four writers of a hundred steps each."""
    writers = [start(ADD, url, 100) for _ in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert opened(url).get_many([b"total"]) == [b"400"]


def test_a_killed_server_loses_nothing_and_leaves_nothing_half(start, own_server, opened):
    """SIGKILL amid two writers, several times: what was acknowledged is there, with all its hundred copies."""
    server = own_server()
    keys = opened(server.url())
    for turn in range(5):
        writers = {name: start(PUT, server.url(), name) for name in ("x", "y")}
        acknowledged = {name: [int(writer.line()) for _ in range(5 + turn)] for name, writer in writers.items()}
        server.kill()
        for name, writer in writers.items():
            acknowledged[name] += [int(line) for line in writer.rest()]
        server.start()
        for name, told in acknowledged.items():
            (number,) = keys.get_many([name.encode()])
            assert told[-1] <= int(number) <= told[-1] + 1
            copies = list(keys.scan(name.encode() + b" copy"))
            assert [value for _, value in copies] == [number * 20] * 100


def test_a_restarted_server_is_found_again(own_server, opened):
    """Calls on a dead server say so; once it is back, the same object works."""
    server = own_server()
    keys = opened(server.url())
    keys.put_many({b"a": b"1"})
    server.kill()
    for call in (lambda: keys.get_many([b"a"]), lambda: keys.put_many({b"a": b"2"}), lambda: list(keys.scan(b""))):
        with pytest.raises(RetryableError, match="no connection"):
            call()
    server.start()
    assert keys.get_many([b"a"]) == [b"1"]


def test_a_server_that_hangs_is_waited_for_no_longer_than_told(own_server, opened):
    """The answer that comes late is never taken for that of the next command."""
    server = own_server()
    keys = opened(server.url(), timeout_s=0.2)
    keys.put_many({b"a": b"1", b"b": b"2"})
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(RetryableError, match="in time"):
        keys.get_many([b"a"])
    os.kill(server.pid, signal.SIGCONT)
    assert keys.get_many([b"b"]) == [b"2"]


def test_an_interrupted_call_leaves_no_answer_behind(own_server, opened):
    """A signal that ends a call ends its connection."""
    server = own_server()
    keys = opened(server.url())
    keys.put_many({b"a": b"1", b"b": b"2"})
    os.kill(server.pid, signal.SIGSTOP)
    before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(KeyboardInterrupt):
        keys.get_many([b"a"])
    signal.signal(signal.SIGALRM, before)
    os.kill(server.pid, signal.SIGCONT)
    assert keys.get_many([b"b"]) == [b"2"]


def test_a_write_whose_answer_is_lost_says_so(server, opened):
    """The connection ends after the server took the write: nobody can know, and nothing is tried twice."""
    with Between(server.port) as between:
        keys = opened(between.url())
        keys.put_many({b"n": b"1"})
        between.cut = b"EVAL"
        with pytest.raises(RetryableError, match="whether the write was stored is not known"):
            keys.update([b"n"], lambda values: {b"n": b"%d" % (int(values[0]) + 1)})
        between.cut = None
        assert keys.get_many([b"n"]) == [b"2"]


def test_nothing_tells_the_host_the_password_or_a_key(own_server, opened):
    """Not even the traceback: the library's own texts stay out of it."""
    server = own_server("--requirepass", "hunter2", "--rename-command", "MGET", "")
    secrets = ("hunter3", "127.0.0.1", str(server.port), "ann@shop")
    url = server.url().replace("//", "//:hunter3@")
    for wrong in (url, server.url(), url.replace(str(server.port), "1")):
        with pytest.raises(RetrodictError) as caught:
            opened(wrong)
        assert not any(secret in told(caught.value) for secret in secrets)
    keys = opened(url.replace("hunter3", "hunter2"))
    with server.client(password="hunter2") as client:
        client.execute_command("ACL", "SETUSER", "default", "-eval")
    for call, rule in (
        (lambda: keys.put_many({b"ann@shop": b"1"}), "the user must have the permissions"),
        (lambda: keys.get_many([b"ann@shop"]), "must have the commands"),
    ):
        with pytest.raises(RetrodictError, match=rule) as caught:
            call()
        assert not any(secret in told(caught.value) for secret in secrets)


def test_a_password_comes_from_the_environment(own_server, opened, monkeypatch):
    """Any characters; a variable that is not set is named."""
    server = own_server("--requirepass", "p@ss/w:rd?#%41")
    url = server.url().replace("//", "//default:${STORE_PASSWORD}@")
    with pytest.raises(ConfigurationError, match="'STORE_PASSWORD'"):
        opened(url)
    monkeypatch.setenv("STORE_PASSWORD", "wrong")
    with pytest.raises(ConfigurationError, match="must accept the user and the password"):
        opened(url)
    monkeypatch.setenv("STORE_PASSWORD", "p@ss/w:rd?#%41")
    assert opened(url).get_many([b"a"]) == [None]


def test_a_full_server_refuses_the_write_whole(own_server, opened):
    """What was there stays, removals go on, and once there is room, writes do."""
    server = own_server()
    keys = opened(server.url())
    keys.put_many({b"a": b"1", b"b": b"1"})
    with server.client() as client:
        client.config_set("maxmemory", 1)
        for call in (
            lambda: keys.put_many({b"a": None, b"c": b"2"}),
            lambda: keys.update([b"a"], lambda _: {b"a": b"2", b"c": b"2"}),
        ):
            with pytest.raises(ConfigurationError, match="maxmemory"):
                call()
        assert list(keys.scan(b"")) == [(b"a", b"1"), (b"b", b"1")]
        assert client.info("clients")["connected_clients"] == 2  # refused calls leave no connection behind
        keys.put_many({b"b": None})
        client.config_set("maxmemory", 0)
    keys.put_many({b"c": b"2"})
    assert list(keys.scan(b"")) == [(b"a", b"1"), (b"c", b"2")]


def test_a_replica_is_read_and_not_written(own_server, opened):
    """As after a failover: the error may pass, and it does once the server is a primary again."""
    server = own_server()
    keys = opened(server.url())
    keys.put_many({b"a": b"1"})
    with server.client() as client:
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(RetryableError, match="replica"):
            keys.put_many({b"a": b"2"})
        assert keys.get_many([b"a"]) == [b"1"]
        client.replicaof("NO", "ONE")
    keys.put_many({b"a": b"3"})
    assert keys.get_many([b"a"]) == [b"3"]


def test_what_others_did_under_the_prefix_is_found(server, opened):
    """An index of another type is refused before anything is written; a value that was deleted is missed."""
    prefix = uuid.uuid4().hex
    keys = opened(server.url(prefix))
    with server.client() as client:
        client.set(f"{{{prefix}}}", "mine")
        with pytest.raises(IntegrityError, match="nothing but this store"):
            keys.put_many({b"a": b"1"})
        assert keys.get_many([b"a"]) == [None]
        client.delete(f"{{{prefix}}}")
        keys.put_many({b"a": b"1", b"b": b"2"})
        client.delete(f"{{{prefix}}}:a")
    with pytest.raises(IntegrityError, match="1 of 2"):
        list(keys.scan(b""))


def test_a_server_that_evicts_is_refused(own_server, opened):
    """Whatever the URL accepts; without a limit there is nothing to evict."""
    server = own_server("--maxmemory-policy", "allkeys-lru")
    opened(server.url())
    with server.client() as client:
        client.config_set("maxmemory", "1gb")
    with pytest.raises(ConfigurationError, match="must evict no keys; got 'maxmemory-policy allkeys-lru'"):
        opened(server.url(options="&durability=server"))


@pytest.mark.parametrize(
    "settings_",
    [
        ("--appendonly", "no"),
        ("--appendfsync", "everysec"),
        ("--no-appendfsync-on-rewrite", "yes"),
        ("--rename-command", "CONFIG", ""),
    ],
)
def test_a_server_that_may_forget_is_taken_only_if_told(own_server, opened, settings_):
    """No silent lie: durable writes are refused at opening, or the URL says they need not be."""
    server = own_server(*settings_)
    with pytest.raises(ConfigurationError, match="loss of power"):
        opened(server.url())
    keys = opened(server.url(options="&durability=server"))
    assert keys.durability == "server"
    keys.put_many({b"a": b"1"})
    assert keys.get_many([b"a"]) == [b"1"]


def test_a_server_that_syncs_every_write_is_not_asked_to(server, url, opened):
    """The strict default on a server with appendfsync always."""
    keys = opened(url)
    keys.put_many({b"a": b"1"})
    assert keys.durability == "always"
    with server.client() as client:
        assert "cmdstat_waitaof" not in client.info("commandstats")


def test_a_server_is_asked_to_sync_where_it_can_be(own_server, opened):
    """With WAITAOF (Redis 7.2) a durable write waits for it, another does not, and one not synced is told."""
    server = own_server("--appendfsync", "everysec")
    with Between(server.port, waitaof=b"*2\r\n:1\r\n:0\r\n") as between:
        keys = opened(between.url(), timeout_s=2)
        assert keys.durability == "on request"
        before = len(between.waited)
        keys.put_many({b"a": b"1"}, durable=False)
        assert between.waited[before:] == []
        keys.put_many({b"a": b"2"})
        assert between.waited[before:] == [[b"WAITAOF", b"1", b"0", b"1600"]]
        between.waitaof = b"*2\r\n:0\r\n:0\r\n"
        with pytest.raises(RetryableError, match="no sync:"):
            keys.update([b"a"], lambda _: {b"a": b"3"})
        assert keys.get_many([b"a"]) == [b"3"]


def test_a_store_is_not_carried_across_a_fork(start, url):
    """The child is refused and touches no socket of its parent, not even when it closes the store and ends."""
    process = start(FORK, url)
    assert "not before a fork" in process.line()
    assert process.line() == "[b'1'] in 1 connection"


def test_threads_share_connections_and_get_their_own_answers(own_server, opened):
    """Eight threads, each reading its own key, in as many connections at most; closing ends all of them."""
    server = own_server()
    keys, wrong = opened(server.url()), []
    keys.put_many({b"%d" % i: b"%d" % i for i in range(8)})

    def read(name):
        wrong.extend(found for _ in range(200) if (found := keys.get_many([name])) != [name])

    threads = [threading.Thread(target=read, args=(b"%d" % i,), daemon=True) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    with server.client() as client:
        assert 1 <= client.info("clients")["connected_clients"] - 1 <= 8
        keys.close()
        for _ in range(100):
            if client.info("clients")["connected_clients"] == 1:
                break
            time.sleep(0.02)
        assert client.info("clients")["connected_clients"] == 1


def test_without_the_extra_the_message_has_the_install_line(start):
    """Nothing of it is loaded before it is needed."""
    process = start(WITHOUT)
    assert process.line() == "False"
    assert "pip install 'retrodict[redis]'" in process.line()


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("redis://hunter2@:1/0", "must name a server"),
        ("redis:///0", "must name a server"),
        ("redis:hunter2", "must name a server"),
        ("redis://cache.example:hunter2/0", "must name a server"),
        ("redis://cache.example/hunter2", "must name a server"),
        ("redis://[cache.example/0", "must name a server"),
        ("redis://cache.example/0?prefix=", "must name a server"),
        ("redis://cache.example/0#hunter2", "must name a server"),
        ("redis://cache.example/0?hunter2=hunter2", "'durability' and 'prefix' only; got '1 other'"),
        ("redis://cache.example/0?durability=hunter2", "'strict' or 'server'"),
        ("unix://cache.example/socket", "must name a server"),
        ("unix:///?db=0", "must name a server"),
        ("unix:///socket?db=hunter2", "must name a server"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_unrepeated(tmp_path, url, rule):
    """Whatever is wrong with it, its parts stay out of the message and the traceback."""
    with pytest.raises(ConfigurationError, match=rule) as caught:
        open_keys(url, tmp_path)
    assert not any(secret in told(caught.value) for secret in ("hunter2", "example"))


def told(error):
    """All that a traceback shows, without the lines of the test itself."""
    return "".join(traceback.format_exception_only(error)) + (told(error.__cause__) if error.__cause__ else "")
