"""A Sentinel that says what the test tells it to: one that lags behind, is silent, or knows nothing."""

import socketserver
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

UNKNOWN = b"*-1\r\n"
SILENT = b""


def names(port: int, host: str = "127.0.0.1") -> bytes:
    """The answer that the master is there."""
    return b"*2\r\n$%d\r\n%s\r\n$%d\r\n%d\r\n" % (len(host), host.encode(), len(str(port)), port)


class ScriptedSentinel(socketserver.ThreadingTCPServer):
    """Gives one answer after the other, the last one for ever, and keeps what it was sent. A context manager."""

    daemon_threads = True

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.heard: list[bytes] = []
        self._answers = list(answers)
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.port: int = self.server_address[1]

    def answer(self, question: bytes) -> bytes:
        self.heard.append(question)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()


class _Conversation(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server: Any = self.server
        while question := self.request.recv(4096):
            self.request.sendall(server.answer(question))
