"""Callers as applications write them: they ask again when Redis is away, and note how long that took."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from producer import Producer, ProducerSettings, RedisUnavailable
from producer.connection import run_script
from producer.core import Core
from producer.effects import Enqueue, Lookup, Pull, Steps
from producer.results import Vector
from producer.wire.keys import Kind
from producer.wire.scripts import ScriptCall
from tests.integration.harness.site import Site

_PAUSE_S = 0.05
_GIVE_UP_S = 120.0
"""Of refusals on end: a server that does not come back fails its test instead of holding it for ever."""

_BUDGET_S = 600.0
_SOCKET_S = 5.0

Answer = TypeVar("Answer")


class Patience:
    """Repeats calls that Redis refuses; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.refusals = 0
        self.longest_outage_s = 0.0
        self.longest_call_s = 0.0

    def __call__(self, call: Callable[[], Answer]) -> Answer:
        """Call until it is answered, unless it is refused for very long."""
        started, refused_at = time.monotonic(), None
        while True:
            try:
                answer = call()
            except RedisUnavailable:
                refused_at = refused_at or time.monotonic()
                with self._lock:
                    self.refusals += 1
                if time.monotonic() - refused_at > _GIVE_UP_S:
                    raise
                time.sleep(_PAUSE_S)
            else:
                self._note_answer(started, refused_at)
                return answer

    def embed_many(self, producer: Producer, texts: Sequence[str], rows: int, pause_s: float) -> list[Vector]:
        """Embed texts on the interactive lane, so many rows a call, with pauses in between."""
        vectors: list[Vector] = []
        for first in range(0, len(texts), rows):
            some = texts[first : first + rows]
            vectors.extend(self(lambda some=some: producer.embed_many(some)))  # type: ignore[misc]
            time.sleep(pause_s)
        return vectors

    def iter_embed(self, producer: Producer, texts: Sequence[str], window: int) -> list[Vector]:
        """Embed texts on the bulk lane; a run that breaks off goes on from where it was."""
        vectors: list[Vector] = []

        def go_on() -> None:
            for vector in producer.iter_embed(texts[len(vectors) :], window=window):
                vectors.append(vector)

        self(go_on)
        return vectors

    def _note_answer(self, started: float, refused_at: float | None) -> None:
        now = time.monotonic()
        with self._lock:
            self.longest_call_s = max(self.longest_call_s, now - started)
            if refused_at is not None:
                self.longest_outage_s = max(self.longest_outage_s, now - refused_at)


def abandoned_job(site: Site, text: str, *, budget_s: float) -> ScriptCall:
    """The script call of a bulk caller that nobody will see again once Redis has taken its row."""
    settings = ProducerSettings(
        redis_url=site.url, namespace=site.namespace, embed_model=site.model, rerank_model=site.model
    )
    core = Core(settings)
    steps = Steps(core.iter_embed(Kind.PASSAGE, 1, budget_s))
    while not isinstance(effect := steps.effect, Enqueue):
        steps.send([text] if isinstance(effect, Pull) else [None] if isinstance(effect, Lookup) else None)
    return effect.call("nobody")


class Forgetful:
    """Enqueues rows on the bulk lane, one after the other, and waits for no result: Redis's word is all it has."""

    def __init__(self, site: Site, *, name: str, pause_s: float, again: bool = False) -> None:
        self._site = site
        self._name = name
        self._pause_s = pause_s
        self._again = again
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._enqueue, name="forgetful")
        self.acknowledged: dict[str, float] = {}
        """Text, and the moment (monotonic seconds) at which Redis had said yes."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; without `again`, Redis's first refusal ends it, too."""
        self._stopping.set()
        self._thread.join()

    def _enqueue(self) -> None:
        with redis.Redis.from_url(self._site.url, retry=Retry(NoBackoff(), 0), socket_timeout=_SOCKET_S) as client:
            for number in itertools.count():
                if self._stopping.wait(self._pause_s):
                    return
                text = f"{self._name}-{number} word"
                try:
                    run_script(client, abandoned_job(self._site, text, budget_s=_BUDGET_S))
                except (RedisError, OSError):
                    if not self._again:
                        return
                else:
                    self.acknowledged[text] = time.monotonic()
