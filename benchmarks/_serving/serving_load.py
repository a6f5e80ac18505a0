"""Load over raw sockets and epoll, by one process: requests are bytes made before, answers are only counted.

An HTTP library, and asyncio too, would cost more for each request than the servers that are measured.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
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


if __name__ == "__main__":
    port, path, connections, seconds = sys.argv[1:5]
    asked = [bytes.fromhex(line) for line in Path(path).read_text().split()]
    print(json.dumps(run(int(port), asked, int(connections), float(seconds))))
