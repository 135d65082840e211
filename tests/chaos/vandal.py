"""Breaks networks by a seeded schedule: one fault after the other, on one proxy or several, each ended in its time."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from producer.wire.scripts import script
from tests.chaos.proxy import Proxy
from tests.chaos.weather import BOTH, Direction, Trap, Weather

COMMANDS = (
    script("enqueue").sha.encode(),
    script("complete").sha.encode(),
    b"XREADGROUP",
    b"XCLAIM",
    rb"\r\nSET\r\n",
    b"MGET",
    b"PUBLISH|SUBSCRIBE",
)
"""Whose replies get lost."""

_SIDES: tuple[tuple[Direction, ...], ...] = (BOTH, ("up",), ("down",))

Fault = Callable[[random.Random, Proxy], None]


def _delay(chance: random.Random, proxy: Proxy) -> None:
    proxy.change(Weather(up_delay_s=chance.uniform(0, 0.2), down_delay_s=chance.uniform(0, 0.2)))


def _throttle(chance: random.Random, proxy: Proxy) -> None:
    proxy.change(Weather(bytes_per_s=chance.choice((2_000, 20_000, 200_000))))


def _stall(chance: random.Random, proxy: Proxy) -> None:
    proxy.change(Weather(stalled=chance.choice(_SIDES)))


def _darken(chance: random.Random, proxy: Proxy) -> None:
    proxy.change(Weather(dark=chance.choice((BOTH, ("down",)))))


def _refuse(chance: random.Random, proxy: Proxy) -> None:
    proxy.change(Weather(refusing=True))
    if chance.random() < 0.7:
        proxy.cut()


def _cut(_chance: random.Random, proxy: Proxy) -> None:
    proxy.cut()


def _cut_in_a_reply(chance: random.Random, proxy: Proxy) -> None:
    proxy.cut(after_bytes=chance.choice((1, 7, 40, 150, 1000)))


def _lose_a_reply(chance: random.Random, proxy: Proxy) -> None:
    ends: tuple[Literal["cut", "dark"], ...] = ("cut", "cut", "dark")
    proxy.set_trap(Trap(command=chance.choice(COMMANDS), keep_bytes=chance.choice((0, 0, 5)), then=chance.choice(ends)))


FAULTS: dict[str, Fault] = {
    "delay": _delay,
    "throttle": _throttle,
    "stall": _stall,
    "dark": _darken,
    "refuse": _refuse,
    "cut": _cut,
    "cut in a reply": _cut_in_a_reply,
    "reply lost": _lose_a_reply,
}


class Vandal:
    """Strikes until its schedule is done; `longest_s` is the longest that a fault lasts.

    Connections that have lost bytes in the dark are reset when the fault ends, or, with `leave_dark`, half of them
    stay: then only a client's own timeout ends them.
    """

    def __init__(
        self, proxies: Mapping[str, Proxy], chance: random.Random, *, longest_s: float, leave_dark: bool
    ) -> None:
        self._proxies = proxies
        self._chance = chance
        self._longest_s = longest_s
        self._leave_dark = leave_dark
        self.faults: Counter[str] = Counter()

    def run(self, strikes: int, *, stop: threading.Event) -> None:
        """Strike so many times, each kind of fault as often as the others, then let all be well."""
        for name in self._schedule(strikes):
            if stop.is_set():
                break
            self._strike(name, stop)
        for proxy in self._proxies.values():
            proxy.heal()

    def _schedule(self, strikes: int) -> Sequence[str]:
        rounds = -(-strikes // len(FAULTS))
        names = [name for _ in range(rounds) for name in self._chance.sample(sorted(FAULTS), len(FAULTS))]
        return names[:strikes]

    def _strike(self, name: str, stop: threading.Event) -> None:
        hit = self._chance.sample(sorted(self._proxies), self._chance.choice((1, 1, 2)))
        for target in hit:
            FAULTS[name](self._chance, self._proxies[target])
            self.faults[name] += 1
        stop.wait(self._longest_s * self._chance.random() ** 2)
        for target in hit:
            self._proxies[target].heal(reset_dark=not (self._leave_dark and self._chance.random() < 0.5))
        stop.wait(self._chance.uniform(0, 0.3))
