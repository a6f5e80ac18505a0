"""Keys in Redis or Valkey: the server twin of the memory-mapped tree, for readers on many machines.

A value lies under the name ``{prefix}:key``; the sorted set ``{prefix}`` holds all names with one score, which Redis
keeps in bytewise order. The braces put all names into one slot of a cluster: a command with many keys stays within one.

Every write is one script: it compares what ``update`` read with what is there, and writes only if nothing differs. A
script is applied alone and reaches the file as one transaction. ``WATCH`` was rejected: watching 5,000 keys holds the
whole server for 87 ms and 20,000 for 1.4 s, since each is compared with all before it (Redis 7.0). One hash for the
whole store was rejected too: it saves nothing, and a server that may evict would evict all of it at once.

A scan is one script as well, because Redis has no other way to read a range and its values in one state. The server
answers nobody else while it runs, and the answer is held in memory whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from urllib.parse import quote

from retrodict.core.errors import IntegrityError, RetryableError
from retrodict.stores._guard import ServerGuard
from retrodict.stores.keys._address import read_address
from retrodict.stores.keys._connections import WHERE, Connections, Durability
from retrodict.stores.keys.base import KeyStore, check_keys

__all__ = ["RedisKeys"]

Change = Callable[[list[bytes | None]], Mapping[bytes, bytes | None]]

# Lua passes at most 8,000 arguments to a command, so they go in pieces.
_PIECES = b"""
local function pieces(first, last, act)
  for from = first, last, 2000 do act(from, math.min(from + 1999, last)) end
end
"""

# ARGV: how many names were read, how many are put; "1" or "0" for each name read, as it was there or not; the names
# read; their values; name and value of each put; the names removed. The index is written first: should it be of another
# type, or the memory full, the script ends before anything is stored.
_WRITE = (
    _PIECES
    + b"""
local read, put, there = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local now = {}
pieces(4, 3 + read, function(first, last)
  for place, value in ipairs(redis.call('MGET', unpack(ARGV, first, last))) do now[first + place - 4] = value end
end)
for i = 1, read do
  if there:byte(i) ~= (now[i] and 49 or 48) or (now[i] or '') ~= ARGV[3 + read + i] then return now end
end
local start = 4 + 2 * read
pieces(start, start + 2 * put - 1, function(first, last)
  local index = {}
  for i = first, last, 2 do index[i - first + 1], index[i - first + 2] = 0, ARGV[i] end
  redis.call('ZADD', KEYS[1], unpack(index))
  redis.call('MSET', unpack(ARGV, first, last))
end)
pieces(start + 2 * put, #ARGV, function(first, last)
  redis.call('ZREM', KEYS[1], unpack(ARGV, first, last))
  redis.call('DEL', unpack(ARGV, first, last))
end)
return 'stored'
"""
)

_SCAN = (
    _PIECES
    + b"""
local names, values = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2]), {}
pieces(1, #names, function(first, last)
  values[#values + 1] = redis.call('MGET', unpack(names, first, last))
end)
return {names, values}
"""
)


class RedisKeys(KeyStore):
    """Server twin of :class:`~retrodict.stores.keys.base.KeyStore` on Redis 7.0 or newer, or Valkey.

    One object may be shared by the threads of a process; it holds as many connections as calls ran at once. It is not
    carried across ``fork``. A call on a server that was restarted connects anew. A write whose answer is lost is a
    RetryableError that says so: it may have been stored or not. The first step of a scan reads all its pairs, and the
    server serves nobody else meanwhile (about 0.2 s for 100,000 values of 400 bytes): go by narrow prefixes where
    others wait.

    Parameters
    ----------
    url : str
        ``redis://host:port/db``, ``rediss://`` for TLS, ``unix:///path/of/socket?db=0``; ``valkey://`` and
        ``valkeys://`` are the same. A user and a password may stand before the host, best as ``${NAME}`` of the
        environment. Options: ``prefix`` (namespace within the database, by default ``retrodict``) and ``durability``
        (``strict``, the default, refuses a server that cannot promise it; ``server`` takes the server as it is).
    timeout_s : float, default 5
        How long the answer to a write or a scan is waited for, and how long an ``update`` is tried while others change
        what it reads, in seconds.
    guard : ServerGuard, optional
        Breaker, retries of ``get_many``, and how long the answer to it is waited for.

    Raises
    ------
    ConfigurationError
        If the URL cannot be read, the server refuses the user, may evict keys, or cannot promise durable writes.
    RetryableError
        If the server cannot be reached.

    Examples
    --------
    >>> keys = RedisKeys("redis://127.0.0.1:6379/0?prefix=shop")  # doctest: +SKIP
    >>> keys.put_many({b"a": b"1", b"b": b"2"})  # doctest: +SKIP
    >>> keys.get_many([b"b", b"c"])  # doctest: +SKIP
    [b'2', None]
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, guard: ServerGuard | None = None) -> None:
        address = read_address(url)
        # Whatever the prefix is, its quoted form has no brace, so no two stores share a name.
        self._index = b"{%s}" % quote(address.prefix, safe="").encode()
        self._prefix = self._index + b":"
        self._timeout_s = timeout_s
        self._server = Connections(address, timeout_s, guard or ServerGuard())

    @property
    def durability(self) -> Durability:
        """What a durable write rests on.

        ``always``: the server syncs every write before it answers. ``on request``: it is asked to (``WAITAOF``).
        ``server``: nobody knows, and the URL said that this is all right.
        """
        return self._server.durability

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            self._server.check_usable()
            return []
        prefix = self._prefix
        values: list[bytes | None] = self._server.read(b"MGET", *[prefix + key for key in keys])
        if None in values:
            check_keys(keys)  # nothing is stored under a wrong key, so a hit needs no check
        return values

    def put_many(self, items: Mapping[bytes, bytes | None], *, durable: bool = True) -> None:
        self._write([], [], items, durable)

    def update(self, keys: Sequence[bytes], change: Change, *, durable: bool = True) -> None:
        check_keys(keys)
        end = time.monotonic() + self._timeout_s
        values: list[bytes | None] | None = self.get_many(keys)
        while values is not None:
            # The function gets its own list: what is compared must be what was read.
            values = self._write(keys, values, change(list(values)), durable)
            if values is not None and time.monotonic() > end:
                raise RetryableError(
                    "the values of an update must stop changing; they kept changing, and nothing of it was stored",
                    where=WHERE,
                    remedy="Try again, or let fewer writers change the same keys",
                    got="other values with every try",
                )

    def scan(self, prefix: bytes, *, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        self._server.check_usable()
        return self._scan(prefix, prefix if start is None else max(prefix, start))

    def _scan(self, prefix: bytes, begin: bytes) -> Iterator[tuple[bytes, bytes]]:
        # The least name that is greater than all under the prefix; there is one, since our part of it ends in ':'.
        stem = (self._prefix + prefix).rstrip(b"\xff")
        bounds = b"[" + self._prefix + begin, b"(" + stem[:-1] + bytes([stem[-1] + 1])
        ((names, pieces),) = self._server.ask([b"EVAL", _SCAN, 1, self._index, *bounds])
        values = list(chain.from_iterable(pieces))
        if None in values:
            raise IntegrityError(
                "every key must have a value, unless something else writes under the prefix",
                where=WHERE,
                got=f"{values.count(None)} of {len(names)} without one",
                remedy="Give this store a prefix of its own",
            )
        cut = len(self._prefix)
        for name, value in zip(names, values, strict=True):
            yield name[cut:], value

    def close(self) -> None:
        self._server.close()

    def _write(
        self,
        keys: Sequence[bytes],
        values: list[bytes | None],
        items: Mapping[bytes, bytes | None],
        durable: bool,
    ) -> list[bytes | None] | None:
        """Store the items if ``keys`` still have these values; else what they have now."""
        check_keys(items)
        prefix = self._prefix
        read = [prefix + key for key in keys]
        put = [part for key, value in items.items() if value is not None for part in (prefix + key, value)]
        removed = [prefix + key for key, value in items.items() if value is None]
        presence = b"".join(b"0" if value is None else b"1" for value in values)
        expected = [value or b"" for value in values]
        command = [
            b"EVAL",
            _WRITE,
            1,
            self._index,
            len(read),
            len(put) // 2,
            presence,
            *read,
            *expected,
            *put,
            *removed,
        ]
        awaited = durable and self.durability == "on request"
        # A server that took longer to sync than this would not answer in time.
        wait = [[b"WAITAOF", 1, 0, int(self._timeout_s * 800)]] if awaited else []
        answer, *synced = self._server.ask(command, *wait, writes=True)
        if isinstance(answer, list):
            return answer
        if synced and not synced[0][0]:
            raise RetryableError(
                "the server must sync a durable write in time; it stored this one and did not sync it",
                where=WHERE,
                remedy="Set appendfsync to 'always', or look at the server's disk",
                got="no sync: a loss of power may undo the write",
            )
        return None
