"""A relay in front of a server that goes silent, as a cut network does: connections are accepted and stay open."""

import contextlib
import select
import socket
import threading


class SilentRelay:
    """Passes bytes on in both directions, unless it is ``silent``: then it takes what comes and says nothing."""

    def __init__(self, port):
        self._target, self.silent = port, False
        self.silent_after = None  # so many bytes more of the server's answers, which ends in the middle of one
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self._listener.getsockname()[1]
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        """One connection; what was swallowed is lost, so what had a part of it ends when the relay speaks again."""
        server, lost = None, False
        with client, contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            while not self._ended.is_set():
                if server is None and not self.silent:
                    if lost:
                        return
                    server = stack.enter_context(socket.create_connection(("127.0.0.1", self._target)))
                ends = [client] if server is None else [client, server]
                for source in select.select(ends, [], [], 0.05)[0]:
                    data = source.recv(1 << 16)
                    if source is server and self.silent_after is not None:
                        data, self.silent_after = data[: self.silent_after], self.silent_after - len(data)
                        if self.silent_after <= 0:
                            client.sendall(data)
                            self.silent, self.silent_after = True, None
                    if self.silent:
                        lost = True
                        if not data:
                            return
                    elif not data or lost:
                        return
                    else:
                        (server if source is client else client).sendall(data)
