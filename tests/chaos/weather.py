"""How a test's network can be: the weather for all connections of a proxy, and a trap for one single reply."""

import threading
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]
"""`up` goes to the server, `down` to the client."""

BOTH: tuple[Direction, ...] = ("up", "down")


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How the network is; it can change at any moment, also for connections that stand.

    `stalled` directions hold what they are given and pass it on later, as TCP does after an outage. `dark` ones lose
    it: a direction that has lost bytes never passes anything on that connection again, and nobody is told.
    """

    up_delay_s: float = 0.0
    down_delay_s: float = 0.0
    bytes_per_s: int = 0
    refusing: bool = False
    stalled: tuple[Direction, ...] = ()
    dark: tuple[Direction, ...] = ()

    def delay_s(self, direction: Direction, size_bytes: int) -> float:
        """How long so many bytes take."""
        delay_s = self.up_delay_s if direction == "up" else self.down_delay_s
        return delay_s + (size_bytes / self.bytes_per_s if self.bytes_per_s else 0.0)


FAIR = Weather()


@dataclass(frozen=True, kw_only=True)
class Trap:
    """Waits for one command and loses its reply: the server has executed it, and the client cannot know.

    Armed when what a client sends matches `command`, sprung when an answer comes that matches `reply`. Of that,
    `keep_bytes` still pass; then the connection is cut, or its replies go dark.
    """

    command: bytes
    reply: bytes = b""
    keep_bytes: int = 0
    then: Literal["cut", "dark"] = "cut"
    sprung: threading.Event = field(default_factory=threading.Event)
