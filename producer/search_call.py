"""One search of one collection, without I/O: cached results, query vector, vector search, rerank, and what degrades."""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from producer import requests
from producer.errors import ConfigurationError, HeadraceError, InvalidText, MalformedMessage, RedisUnavailable
from producer.qdrant_search import Candidate, Collection, Payload, PointId
from producer.results import EmbedResult, RerankResult
from producer.search_effects import (
    BeginGeneration,
    Embed,
    Fetch,
    Nearest,
    ReadCache,
    Rerank,
    Result,
    SearchEffect,
    SearchFlow,
    WriteCache,
)
from producer.search_results import SearchHit, SearchResults, StageTimes
from producer.templates import TextTemplate
from producer.wire.keys import SearchKeys, search_digest
from producer.wire.searches import GENERATION_BYTES, StoredHit, StoredSearch, decode_search, encode_search
from producer.wire.signing import Seal

logger = logging.getLogger("headrace.producer")

RERANKED = 20
"""Candidates that are reranked at most: a cross-encoder takes a few tenths of a second for them."""

RERANK_TIMEOUT_S = 5.0
"""Far more than 20 candidates take, and less than a person waits for better than nothing."""

_LEAST_S = 0.05
_STAGES = ("resolve", "cache", "embedding", "vector_search", "rerank")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all searches of one `SemanticSearch` have in common. `rerank_tag` is empty if nothing is reranked."""

    place: str
    user_field: str
    rerank_tag: str
    rerank_timeout_s: float
    max_text_bytes: int
    seal: Seal
    clock: Callable[[], float]
    now_ms: Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A collection as one search uses it: whose model embeds the query, and what text is reranked."""

    collection: Collection
    model: str
    tag: str
    template: TextTemplate


class SearchCall:
    """One call of `search`: its deadline, the time of its stages, and whether the cache still serves."""

    def __init__(self, setup: Setup, keys: SearchKeys, query: str, limit: int, timeout_s: float) -> None:
        self._setup = setup
        self._keys = keys
        self._query = query
        self._limit = limit
        self._timeout_s = timeout_s
        self._started = setup.clock()
        self._times: dict[str, float] = {}
        self._generation: bytes | None = None
        self._warned = False

    def run(self, plan: Plan) -> SearchFlow[SearchResults]:
        """Search the collection of the plan, and no other."""
        digest = self._digest(plan)
        hit = yield from self._cached(plan, digest)
        if hit is not None:
            return hit
        embedded: EmbedResult = yield from self.timed("embedding", Embed(plan.model, self._query, self._timeout_s))
        collection = plan.collection
        if embedded.dimension != collection.dimension:
            raise ConfigurationError(
                f"collection {collection.name!r} holds vectors of {collection.dimension} dimensions, {plan.model!r} "
                f"makes {embedded.dimension}: search with the model that filled it (HEADRACE_EMBED_MODEL)"
            )
        wanted = max(self._limit, RERANKED)
        nearest = Nearest(collection, embedded.vector(0), self._keys.user_id, wanted)
        candidates: list[Candidate] = yield from self.timed("vector_search", nearest)
        texts = [plan.template.render(candidate.payload) for candidate in candidates]
        scores, trouble = (yield from self._scores(texts, plan)) if self._setup.rerank_tag else ({}, None)
        order = sorted(range(len(candidates)), key=lambda n: (0, -scores[n], n) if n in scores else _behind(n))
        hits = [_hit(candidates[n], n, scores.get(n)) for n in order[: self._limit]]
        found_at_ms = self._setup.now_ms()
        if trouble is None:
            yield from self._keep(digest, hits, found_at_ms)
        return self._results(
            plan,
            hits,
            {candidate.id: candidate.payload for candidate in candidates},
            found_at_ms=found_at_ms,
            embedding_cached=embedded.cached[0],
            trouble=trouble,
        )

    def timed(self, stage: str, effect: SearchEffect) -> SearchFlow[Result]:
        """Have an effect performed, and count its time for a stage."""
        began = self._setup.clock()
        try:
            answer: Result = yield effect
            return answer
        finally:
            self._times[stage] = self._times.get(stage, 0.0) + (self._setup.clock() - began) * 1000

    def _cached(self, plan: Plan, digest: str) -> SearchFlow[SearchResults | None]:
        """The cached results, if all of their points are still there and the user's; any trouble is a miss."""
        self._generation = None
        try:
            found: list[bytes | None] = yield from self.timed("cache", ReadCache(self._keys, digest))
            generation, value = found
            if generation is None:
                # Before anything is searched: what began under no generation could outlive a `forget`.
                begin = BeginGeneration(self._keys, secrets.token_bytes(GENERATION_BYTES))
                self._generation = yield from self.timed("cache", begin)
                return None
            self._generation = generation
            entry = self._setup.seal.open(self._keys.entry(digest), value)
            if value is None or entry is None:
                return None
            stored = decode_search(entry)
        except (RedisUnavailable, MalformedMessage) as error:
            self._warn(error)
            return None
        if stored.generation != generation:
            return None
        ids = tuple(hit.id for hit in stored.hits)
        payloads: dict[PointId, Payload] = {}
        if ids:
            payloads = yield from self.timed("cache", Fetch(plan.collection, ids, self._keys.user_id))
        if any(point not in payloads for point in ids):
            return None
        return self._results(plan, stored.hits, payloads, found_at_ms=stored.found_at_ms, cached=True)

    def _keep(self, digest: str, hits: Sequence[StoredHit], found_at_ms: int) -> SearchFlow[None]:
        if self._generation is None:
            return
        value = encode_search(StoredSearch(generation=self._generation, found_at_ms=found_at_ms, hits=tuple(hits)))
        value = self._setup.seal.close(self._keys.entry(digest), value)
        try:
            yield from self.timed("cache", WriteCache(self._keys, digest, value, found_at_ms))
        except RedisUnavailable as error:
            self._warn(error)

    def _scores(self, texts: Sequence[str], plan: Plan) -> SearchFlow[tuple[dict[int, float], str | None]]:
        """Scores of the first candidates, by their place; or none, and why."""
        ranked = [n for n, text in enumerate(texts[:RERANKED]) if self._can_be_sent(text)]
        if not ranked:
            pattern = plan.template.pattern
            reason = f"no_text: no candidate has a value in a field of {pattern!r}: name other fields for the text"
            return {}, reason if texts else None
        left_s = max(_LEAST_S, self._timeout_s - (self._setup.clock() - self._started))
        left_s = min(left_s, self._setup.rerank_timeout_s)
        try:
            asked = Rerank(self._query, tuple(texts[n] for n in ranked), round(left_s, 3))
            ranking: RerankResult = yield from self.timed("rerank", asked)
        except HeadraceError as error:
            return {}, f"{error.code}: {error}"
        return {ranked[result.index]: result.score for result in ranking.results}, None

    def _digest(self, plan: Plan) -> str:
        """Identify the search by all that its results depend on, but the user, who is in the key."""
        setup = self._setup
        told = (plan.tag, setup.rerank_tag, plan.template.pattern, str(self._limit), self._query)
        return search_digest(setup.place, setup.user_field, plan.collection.name, *told)

    def _can_be_sent(self, text: str) -> bool:
        """Whether a text can be reranked: one that is too long must not keep the others from it."""
        try:
            requests.clean_text(text, self._setup.max_text_bytes)
        except InvalidText:
            return False
        return True

    def _results(
        self,
        plan: Plan,
        hits: Sequence[StoredHit],
        payloads: Mapping[PointId, Payload],
        *,
        found_at_ms: int,
        cached: bool = False,
        embedding_cached: bool | None = None,
        trouble: str | None = None,
    ) -> SearchResults:
        stages = {stage: self._times.get(stage) for stage in _STAGES}
        return SearchResults(
            results=tuple(
                SearchHit(
                    id=hit.id,
                    rank=rank,
                    vector_rank=hit.vector_rank,
                    vector_score=hit.vector_score,
                    rerank_score=hit.rerank_score,
                    text=plan.template.render(payloads[hit.id]),
                    payload=payloads[hit.id],
                )
                for rank, hit in enumerate(hits, 1)
            ),
            collection=plan.collection.name,
            model=plan.model,
            timings_ms=StageTimes(**stages, total=(self._setup.clock() - self._started) * 1000),
            found_at_ms=found_at_ms,
            cached=cached,
            embedding_cached=embedding_cached,
            fallback_used=trouble is not None,
            fallback_reason=trouble,
        )

    def _warn(self, error: HeadraceError) -> None:
        """Say once a call that results are computed anew."""
        if not self._warned:
            self._warned = True
            logger.warning("cached searches cannot be used, going on without them: %s", error)


def _behind(place: int) -> tuple[int, float, int]:
    """Where a candidate without a score goes: behind all that have one, as the vectors have it."""
    return 1, 0.0, place


def _hit(candidate: Candidate, place: int, rerank_score: float | None) -> StoredHit:
    return StoredHit(id=candidate.id, vector_rank=place + 1, vector_score=candidate.score, rerank_score=rerank_score)
