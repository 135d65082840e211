"""A TCP proxy on loopback that can be a bad network: slow, narrow, cut, refusing, dark, or losing one chosen reply."""

import re
import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.chaos.weather import FAIR, Direction, Trap, Weather

_CHUNK_BYTES = 65_536
_PIECE_BYTES = 512
_REMEMBERED_BYTES = 512
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a free port while its block lasts, and passes everything on to the server's port."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._changed = threading.Condition()
        self._trap: Trap | None = None
        self._links: set[_Link] = set()
        self._closing = False
        self.weather = FAIR
        # Two sockets share the port: one keeps it and one listens, so that refusing gives the port to nobody else.
        self._keeper = _bind(0)
        self._port: int = self._keeper.getsockname()[1]
        self._listening: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def change(self, weather: Weather) -> None:
        """Let the network be so from now on."""
        with self._changed:
            self.weather = weather
            self._changed.notify_all()
        if weather.refusing:
            self._stop_listening()
        else:
            self._listen()

    def heal(self, *, reset_dark: bool = True) -> None:
        """Let all be well again; connections that have lost bytes are reset, as by a peer that has forgotten them."""
        self._trap = None
        self.change(FAIR)
        for link in self._live_links():
            if reset_dark and link.dark:
                link.cut()

    def cut(self, *, after_bytes: int = 0) -> None:
        """Cut all connections; with `after_bytes`, each when so many more bytes have come down on it."""
        for link in self._live_links():
            if after_bytes:
                link.left_bytes = after_bytes
            else:
                link.cut()

    def set_trap(self, trap: Trap) -> Trap:
        """Lose the reply to the first command that fits; one trap at a time."""
        self._trap = trap
        return trap

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
        self._stop_listening()
        self._keeper.close()
        for link in self._live_links():
            link.cut()
            link.join()

    def _live_links(self) -> list["_Link"]:
        with self._changed:
            self._links = {link for link in self._links if link.is_alive}
            return list(self._links)

    def _listen(self) -> None:
        if self._listening is None and not self._closing:
            self._listening = _bind(self._port)
            self._listening.listen()
            self._acceptor = threading.Thread(target=self._accept, args=(self._listening,), name="proxy-acceptor")
            self._acceptor.start()

    def _stop_listening(self) -> None:
        if self._listening is not None and self._acceptor is not None:
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts; closing alone does not
            self._acceptor.join()
            self._listening.close()
            self._listening = None

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                client.close()
                continue
            link = _Link(self, client, server)
            with self._changed:
                self._links.add(link)
            link.start()

    def hold(self, link: "_Link", direction: Direction, size_bytes: int) -> None:
        """Hold bytes for as long as the weather asks, or until their connection is cut."""
        with self._changed:
            deadline = time.monotonic() + self.weather.delay_s(direction, size_bytes)
            while not link.is_cut:
                left_s = deadline - time.monotonic()
                if direction in self.weather.stalled:
                    self._changed.wait()
                elif left_s > 0:
                    self._changed.wait(left_s)
                else:
                    return

    def wake(self) -> None:
        """Let who holds bytes look again."""
        with self._changed:
            self._changed.notify_all()

    def arm(self, sent: bytes) -> Trap | None:
        """The trap, if it waits for a command that a client has just sent."""
        trap = self._trap
        return trap if trap is not None and re.search(trap.command, sent, re.DOTALL) else None

    def spring(self, trap: Trap) -> bool:
        """End a trap; False if it has gone, or another connection was first."""
        with self._changed:
            if self._trap is not trap:
                return False
            self._trap = None
            trap.sprung.set()
            return True


class _Link:
    """One connection: two sockets, and a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._to: dict[Direction, socket.socket] = {"up": server, "down": client}
        self._threads = [
            threading.Thread(target=self._pump, args=(client, "up"), name="proxy-up"),
            threading.Thread(target=self._pump, args=(server, "down"), name="proxy-down"),
        ]
        self._ending = threading.Lock()
        self._pumping = len(self._threads)
        self._sent = b""
        self._armed: Trap | None = None
        self.left_bytes: int | None = None
        self.is_cut = False
        self.dark: set[Direction] = set()

    @property
    def is_alive(self) -> bool:
        return self._pumping > 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Reset the connection on both sides; their threads wake, end, and close the sockets."""
        self.is_cut = True
        for end in self._to.values():
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RDWR)
        self._proxy.wake()

    def _pump(self, source: socket.socket, direction: Direction) -> None:
        with suppress(OSError):  # either side has gone; so does the other
            while data := source.recv(_CHUNK_BYTES):
                if direction == "up":
                    self._note_command(data)
                else:
                    data = self._lose(data)
                self._pass_on(data, direction)
        self._end()

    def _note_command(self, data: bytes) -> None:
        self._sent = self._sent[-_REMEMBERED_BYTES:] + data
        if trap := self._proxy.arm(self._sent):
            self._armed, self._sent = trap, b""

    def _lose(self, data: bytes) -> bytes:
        """What is left of data that comes down, when a trap may be waiting for it."""
        self._sent = b""  # whatever was sent has its answer
        trap = self._armed
        if trap is None or not re.search(trap.reply, data, re.DOTALL):
            return data
        self._armed = None
        if not self._proxy.spring(trap):
            return data
        if kept := data[: trap.keep_bytes]:
            self._to["down"].sendall(kept)
        if trap.then == "dark":
            self.dark.add("down")
        else:
            self.cut()
        return b""

    def _pass_on(self, data: bytes, direction: Direction) -> None:
        step = _PIECE_BYTES if self._proxy.weather.bytes_per_s else _CHUNK_BYTES
        for first in range(0, len(data), step):
            piece = data[first : first + step]
            self._proxy.hold(self, direction, len(piece))
            if direction in self._proxy.weather.dark:
                self.dark.add(direction)
            if direction in self.dark:
                return
            if direction == "down" and self.left_bytes is not None:
                piece = piece[: self.left_bytes]
                self.left_bytes -= len(piece)
            self._to[direction].sendall(piece)
            if self.left_bytes == 0:
                self.cut()

    def _end(self) -> None:
        """Wake the other direction; the last one closes both sockets."""
        with self._ending:
            self._pumping -= 1
            for end in self._to.values():
                if self._pumping:
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                else:
                    end.close()
        self._proxy.wake()


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound
