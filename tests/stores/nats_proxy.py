"""A relay in front of a server that can lose the server's answers, as a network does."""

import contextlib
import socket
import threading


class LossyRelay:
    """Passes bytes on; once armed, it passes a number of the server's bytes and then cuts every connection."""

    def __init__(self, port):
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"nats://127.0.0.1:{self._listener.getsockname()[1]}"
        self._left = None
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_after(self, count):
        """Cut after so many more bytes of answers; what the client sends arrives until then."""
        self._left = count

    def lose_all(self):
        """Cut with the next answer, and let nobody connect again."""
        self._refuse()
        self.lose_after(0)

    def close(self):
        self._refuse()
        self._cut()

    def _refuse(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _cut(self):
        self._left = None
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open = []

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open += [client, server]
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source, target, answers):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if answers and self._left is not None:
                    if len(data) >= self._left:
                        target.sendall(data[: self._left])
                        self._cut()
                        return
                    self._left -= len(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
