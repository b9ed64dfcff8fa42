"""An address translator for TCP on loopback, which can forget the connections that it has.

Rule: what it has forgotten stays open and passes nothing, in no direction; new connections pass.
"""

from __future__ import annotations

import selectors
import socket
import threading
from types import TracebackType
from typing import Self

CHUNK = 65536


class Translator:
    """Passes TCP connections on to a server.

    Args:
        to: `address:port` of the server.

    Attributes:
        place: `address:port` that it takes connections at.
        taken: how many connections it has taken.
    """

    def __init__(self, to: str) -> None:
        address, _, port = to.rpartition(":")
        self._to = (address, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.taken = 0
        self._other: dict[socket.socket, socket.socket] = {}
        self._forgotten: frozenset[socket.socket] = frozenset()
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.close()
        self._thread.join()
        self._selector.close()
        for each in (self._listener, self._woken, *self._other):
            each.close()

    def forget(self) -> None:
        """Pass nothing more over the connections that there are; nobody is told."""
        self._forgotten = frozenset(self._other)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                if key.fileobj is self._listener:
                    self._take()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._pass_on(key.fileobj)

    def _take(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(self._to)
        self._other[near], self._other[far] = far, near
        self._selector.register(near, selectors.EVENT_READ)
        self._selector.register(far, selectors.EVENT_READ)
        self.taken += 1

    def _pass_on(self, side: socket.socket) -> None:
        try:
            data = side.recv(CHUNK)
        except OSError:
            data = b""
        other = self._other[side]
        try:
            if data and side not in self._forgotten:
                other.sendall(data)
            elif not data:
                self._selector.unregister(side)
                other.shutdown(socket.SHUT_WR)
        except OSError:  # the other side is gone, and says so itself
            return
