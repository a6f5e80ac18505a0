"""Load over raw sockets and epoll, by one process: requests are bytes made before, answers are only counted.

An HTTP library, and asyncio too, would cost more for each request than the servers that are measured.
"""

from __future__ import annotations

import itertools
import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path


def run(port: int, requests: list[bytes], connections: int, seconds: float) -> dict[str, object]:
    """Ask over as many connections as are said, each one request after the other, for some seconds."""
    poll, sockets, begun = select.epoll(), {}, {}
    buffers: dict[int, bytes] = {}
    times: list[float] = []
    statuses: dict[bytes, int] = {}
    place = 0
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        sockets[connection.fileno()] = connection
        buffers[connection.fileno()] = b""
        poll.register(connection.fileno(), select.EPOLLIN)
    clock = time.perf_counter
    start = clock()
    end = start + seconds
    for number, connection in sockets.items():
        begun[number] = clock()
        connection.send(requests[place % len(requests)])
        place += 1
    waiting = len(sockets)
    while waiting:
        for number, _ in poll.poll():
            connection = sockets[number]
            data = connection.recv(65_536)
            if not data:
                raise ConnectionError("the server closed a connection")
            data = buffers[number] + data
            head = data.find(b"\r\n\r\n")
            at = data.lower().find(b"content-length: ", 0, max(head, 0)) if head >= 0 else -1
            if at < 0 or len(data) < head + 4 + int(data[at + 16 : data.index(b"\r", at)]):
                buffers[number] = data
                continue
            buffers[number] = b""
            now = clock()
            times.append(now - begun[number])
            statuses[data[9:12]] = statuses.get(data[9:12], 0) + 1
            if now >= end:
                waiting -= 1
                continue
            begun[number] = now
            connection.send(requests[place % len(requests)])
            place += 1
    took = clock() - start
    for connection in sockets.values():
        connection.close()
    times.sort()
    return {
        "rate": len(times) / took,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[len(times) * 99 // 100] * 1e3,
        "max_ms": times[-1] * 1e3,
        "requests": len(times),
        "statuses": {status.decode(): count for status, count in statuses.items()},
    }


def run_paced(port: int, requests: list[bytes], connections: int, seconds: float, rate: float) -> dict[str, object]:
    """Ask so many times a second, whether or not answers come; a latency counts from when its request was due."""
    poll, sockets, due, buffers = select.epoll(), {}, {}, {}
    latencies: dict[str, list[float]] = {}

    def connect() -> int:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        number = connection.fileno()
        sockets[number], buffers[number] = connection, b""
        poll.register(number, select.EPOLLIN)
        return number

    def closed(number: int) -> None:
        """Open another connection in the place of one that the server closed, as clients do between two requests."""
        if number in due:
            raise ConnectionError("the server closed a connection before its answer")
        poll.unregister(number)
        sockets.pop(number).close()
        idle.remove(number)
        idle.append(connect())

    for _ in range(connections):
        connect()
    idle, asked, clock = deque(sockets), itertools.cycle(requests), time.perf_counter
    time.sleep(0.5)  # the connections are taken: this is about requests
    start, sent, late = clock(), 0, 0
    while (now := clock()) < start + seconds or due:
        while idle and now < start + seconds and start + sent / rate <= now:
            number = idle.popleft()  # in turn: a server closes one that is idle for long
            due[number] = start + sent / rate
            sockets[number].send(next(asked))
            sent += 1
        late = max(late, int((now - start) * rate) - sent if now < start + seconds else 0)
        for number, _ in poll.poll(0.0005):
            if number not in sockets:
                continue
            received = sockets[number].recv(65_536)
            if not received:
                closed(number)
                continue
            data = buffers[number] + received
            head = data.find(b"\r\n\r\n")
            at = data.lower().find(b"content-length: ", 0, max(head, 0)) if head >= 0 else -1
            if at < 0 or len(data) < head + 4 + int(data[at + 16 : data.index(b"\r", at)]):
                buffers[number] = data
                continue
            buffers[number] = b""
            latencies.setdefault(data[9:12].decode(), []).append((clock() - due.pop(number)) * 1e3)
            idle.append(number)
            if b"connection: close" in data[:head].lower():
                closed(number)
    answers = {status: {"count": len(ms), "p50_ms": ms[len(ms) // 2], "p99_ms": ms[len(ms) * 99 // 100],
                        "max_ms": ms[-1]} for status, ms in ((s, sorted(m)) for s, m in latencies.items())}  # fmt: skip
    return {"offered": rate, "requests": sent, "most_unsent": late, "answers": answers}


if __name__ == "__main__":
    port, path, connections, seconds = sys.argv[1:5]
    asked = [bytes.fromhex(line) for line in Path(path).read_text().split()]
    how = int(port), asked, int(connections), float(seconds)
    print(json.dumps(run_paced(*how, float(sys.argv[5])) if sys.argv[5:] else run(*how)))
