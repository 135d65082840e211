"""Names every Redis key and computes the digest that makes a result content-addressed."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from urllib.parse import quote

from producer.wire.models import ModelSpec, TaskName

GROUP = "headrace"
"""The one consumer group of every lane."""

DIGEST_BYTES = 16


class Kind(StrEnum):
    """What a row is to the model: a search query, a passage to be found, or a (query, document) pair."""

    QUERY = "query"
    PASSAGE = "passage"
    PAIR = "pair"


_LEADS = {kind: b"%d:%b0:" % (len(kind.value), kind.value.encode()) for kind in Kind}
"""What is hashed before a text without a query: its kind, and a query of no bytes."""


class Lane(StrEnum):
    """The two streams of a pool; `interactive` goes first."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


def normalise(text: str) -> str:
    """Make the text as it is digested and sent: line ends become spaces, outer white space goes, case stays."""
    if "\n" in text or "\r" in text:  # most texts have none, and to look costs a seventh of replacing
        text = text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
    return text.strip()


def digest(kind: Kind, text: str, query: str | None = None) -> bytes:
    """Identify a row by content: 128 bits of SHA-256 over kind, normalised query (of a pair) and text.

    Each part is preceded by its length in bytes, so that no two rows share one input to the hash.
    """
    data = text.encode()
    if not query:
        lead = _LEADS[kind]
    else:
        asked = query.encode()
        lead = b"%b%d:%b" % (_LEADS[kind][:-2], len(asked), asked)
    # Hashed as one string: many updates cost more than the hashing.
    return sha256(b"%b%d:%b" % (lead, len(data), data)).digest()[:DIGEST_BYTES]


@dataclass(frozen=True, kw_only=True)
class QueueKeys:
    """The keys of one pool's queue: one task with one model, in one namespace.

    The braces are a Redis Cluster hash tag: whatever one script touches lives in one slot.
    """

    task: TaskName
    tag: str
    namespace: str = ""

    @classmethod
    def of(cls, spec: ModelSpec, namespace: str = "") -> "QueueKeys":
        return cls(task=spec.task, tag=spec.tag, namespace=namespace)

    @property
    def _prefix(self) -> str:
        return f"{self.namespace}:" if self.namespace else ""

    def _in_slot(self, name: str) -> str:
        return f"{self._prefix}{{{self.task}:{self.tag}}}:{name}"

    def lane(self, lane: Lane) -> str:
        """The stream of one lane."""
        return self._in_slot("jobs" if lane is Lane.INTERACTIVE else "bulk")

    def wait(self, row_digest: bytes) -> str:
        """Who waits for a row in flight (hash: `entry`, and a deadline for each waiter's channel)."""
        return self._in_slot(f"wait:{row_digest.hex()}")

    @property
    def load(self) -> str:
        """How much the lanes hold (hash: `<lane>:rows` and `<lane>:bytes`)."""
        return self._in_slot("load")

    def reply(self, row_digest: bytes) -> str:
        """Reply key and cache entry of one row; outside the slot, so that a cluster spreads them."""
        return self._reply_prefix + row_digest.hex()

    @cached_property
    def _reply_prefix(self) -> str:
        return f"{self._prefix}{'emb' if self.task == 'embed' else 'rr'}:{self.tag}:"

    @property
    def dead(self) -> str:
        """Dead letters (stream, capped by count)."""
        return self._in_slot("dead")

    @property
    def card(self) -> str:
        """The model card of the running pool."""
        return self._in_slot("model")

    @property
    def workers(self) -> str:
        """Heartbeats (hash: worker name to message)."""
        return self._in_slot("workers")

    @cached_property
    def stats(self) -> str:
        """Counters (hash); docs/protocol.md lists them."""
        return self._in_slot("stats")


@dataclass(frozen=True, kw_only=True)
class SearchKeys:
    """The keys of one user's cached searches. 1 and "1" are one user.

    The id is escaped, so that it holds no ":", and no user's keys can be another's.
    """

    user_id: str | int
    namespace: str = ""

    def entry(self, search_digest: str) -> str:
        """The cached results of one search."""
        return self._key(search_digest)

    @property
    def generation(self) -> str:
        """A random token: only results that were computed under it are served, so to delete it forgets them all."""
        return self._key("generation")

    @property
    def entries(self) -> str:
        """The digests of what is cached (sorted set, scored by the time of storing in ms)."""
        return self._key("entries")

    def _key(self, last: str) -> str:
        prefix = f"{self.namespace}:" if self.namespace else ""
        return f"{prefix}search:{quote(str(self.user_id), safe='')}:{last}"


def search_digest(*parts: str) -> str:
    """Identify a search by all that its results depend on: 128 bits of SHA-256, as hex, over the parts.

    Each is preceded by its length in bytes, as in `digest`.
    """
    encoded = [part.encode() for part in parts]
    return sha256(b"".join(b"%d:%b" % (len(part), part) for part in encoded)).digest()[:DIGEST_BYTES].hex()


def hint_channel(client_id: str, namespace: str = "") -> str:
    """The pub/sub channel on which one client process is told that rows are ready."""
    return f"{namespace}:hint:{client_id}" if namespace else f"hint:{client_id}"


def pools_key(namespace: str = "") -> str:
    """Which pools have run here (hash: "task:tag" to model name), so that nobody has to SCAN for them."""
    return f"{namespace}:pools" if namespace else "pools"
