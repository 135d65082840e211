"""How a Redis keeps its data, what it has kept after a crash, and how a power cut is imitated."""

import math
import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError

from console.redis_server import RedisServer
from producer.wire.keys import Lane
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

_BALLAST_COMMANDS = 20_000
"""A server that loads looks up from its file every 1,024 commands."""


@dataclass(frozen=True, kw_only=True)
class Durability:
    """How a server keeps its data, and how old what it loses may be; a power cut takes what came after a moment."""

    fsync: str | None
    """None: it keeps no append-only file."""

    may_lose_s: float
    power_cut: bool = False
    """Imitated: the file is cut back to what it was about a second before, as if the rest had not reached the disk."""

    def server(self, program: Path, folder: Path) -> RedisServer:
        """A server of that kind, not yet started."""
        if self.fsync is None:
            return RedisServer(program)
        return RedisServer(program, data_directory=folder, extra=("--appendfsync", self.fsync))


DURABILITIES = {
    "always": Durability(fsync="always", may_lose_s=0),
    # redis.conf: a second by default; aof.c lets a write wait for a slow fsync, for two seconds at most.
    "everysec": Durability(fsync="everysec", may_lose_s=2),
    "everysec, power cut": Durability(fsync="everysec", may_lose_s=math.inf, power_cut=True),
    "no append-only file": Durability(fsync=None, may_lose_s=math.inf),
}


class Crashes:
    """Kills a server and brings it back, from the thread that has started it: the server ends with that thread."""

    def __init__(self, server: RedisServer, client: redis.Redis, chance: random.Random, *, longest_s: float) -> None:
        self._server = server
        self._client = client
        self._chance = chance
        self._longest_s = longest_s
        self.count = 0
        self.refused_loading = 0
        """Commands that found a server which was reading its file."""

    def crash(self) -> None:
        """Kill the server, and bring it back after a while; it may still be loading then."""
        self.note_refusals()
        self._server.kill()
        self.count += 1
        live_for(self._chance.uniform(0.1, self._longest_s))
        self._server.start()

    def await_loaded(self) -> None:
        """Wait until the server that is back serves."""
        await_loaded(self._client)

    def note_refusals(self) -> None:
        """Add up what this server has refused because it was loading; the next one counts from nothing."""
        with suppress(RedisError):
            errors: Any = self._client.info("errorstats")
            self.refused_loading += int(errors.get("errorstat_LOADING", {}).get("count", 0))


def weigh_down(client: redis.Redis) -> None:
    """Make the append-only file so long that a server needs a while to load it, and can be asked meanwhile."""
    with client.pipeline(transaction=False) as pipeline:
        for _ in range(_BALLAST_COMMANDS):
            pipeline.incr("ballast")
        pipeline.execute()


def live_for(seconds: float) -> None:
    """Let time pass: how long a server lives, or is away, is what a campaign varies."""
    time.sleep(seconds)


def await_loaded(client: redis.Redis) -> None:
    """Wait until a server that is back has read its file."""

    def loaded() -> bool:
        try:
            persistence: Any = client.info("persistence")
        except RedisError:
            return False
        return not persistence["loading"]

    wait_until(loaded, what="a server that has loaded")


def kept_rows(site: Site, lane: Lane) -> set[str]:
    """The texts on a lane."""
    entries: Any = site.client.xrange(site.queue().lane(lane))
    return {fields[b"0"].decode() for _, fields in entries}


def size_bytes(folder: Path) -> int:
    """How long the append-only file is."""
    return _append_only_file(folder).stat().st_size


def cut(folder: Path, size_bytes: int) -> None:
    """Cut the append-only file of a dead server back to what it was."""
    os.truncate(_append_only_file(folder), size_bytes)


def _append_only_file(folder: Path) -> Path:
    """The file that commands are appended to: since Redis 7 in a folder, beside a base that holds older ones."""
    (file,) = folder.rglob("*.aof")
    return file
