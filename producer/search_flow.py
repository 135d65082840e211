"""What searches have in common, without I/O: checked arguments, where the alias points, and whose model it asks for."""

from collections.abc import Callable

from producer import requests
from producer.errors import ConfigurationError, StoreUnavailable
from producer.qdrant_search import NO_COLLECTION, Collection, UserId
from producer.search_call import RERANK_TIMEOUT_S, Plan, SearchCall, Setup
from producer.search_effects import Forget, Locate, SearchFlow
from producer.search_results import SearchResults
from producer.settings import ProducerSettings
from producer.templates import TextTemplate
from producer.wire.keys import SearchKeys
from producer.wire.models import resolve
from producer.wire.signing import Seal

LOCATION_S = 0.5
"""So long a search believes where an alias points, so that a switch or a rollback is seen within a second."""

_DEFAULT_TEXT = "{text}"


class SearchCore:
    """The logic of `SemanticSearch` and `AsyncSemanticSearch`. Flows are generators of effects that they perform."""

    def __init__(
        self,
        settings: ProducerSettings,
        *,
        place: str,
        user_field: str,
        text: str,
        rerank: bool,
        rerank_timeout_s: float = RERANK_TIMEOUT_S,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._setup = Setup(
            place=place,
            user_field=user_field,
            rerank_tag=resolve("rerank", settings.rerank_model).tag if rerank else "",
            rerank_timeout_s=requests.check_timeout(rerank_timeout_s),
            max_text_bytes=settings.max_text_bytes,
            seal=Seal(settings.cache_key),
            clock=clock,
            now_ms=now_ms,
        )
        self._clock = clock
        self._template = TextTemplate(text) if text else None
        self._own_tag = resolve("embed", settings.embed_model).tag
        self._located: tuple[Collection, float] | None = None

    def search(self, user_id: UserId, query: str, limit: int, timeout_s: float | None) -> SearchFlow[SearchResults]:
        """Search; if the collection is deleted meanwhile, after a switch, look anew where it is, once."""
        keys = self._keys(user_id)
        requests.check_limit(limit)
        timeout_s = self._settings.timeout_s if timeout_s is None else requests.check_timeout(timeout_s)
        query = requests.clean_text(query, self._settings.max_text_bytes, what="query")
        call = SearchCall(self._setup, keys, query, limit, timeout_s)
        try:
            return (yield from call.run((yield from self._locate(call))))
        except StoreUnavailable as error:
            if error.code != NO_COLLECTION:
                raise
        self._located = None
        return (yield from call.run((yield from self._locate(call))))

    def forget(self, user_id: UserId) -> SearchFlow[None]:
        """Drop a user's cached results."""
        yield Forget(self._keys(user_id))

    def _keys(self, user_id: UserId) -> SearchKeys:
        requests.check_user_id(user_id)
        return SearchKeys(user_id=user_id, namespace=self._settings.namespace)

    def _locate(self, call: SearchCall) -> SearchFlow[Plan]:
        located = self._located
        if located is None or self._clock() - located[1] > LOCATION_S:
            # The time of asking: what the store answers is no younger.
            asked_at = self._clock()
            located = self._located = ((yield from call.timed("resolve", Locate())), asked_at)
        return self._plan(located[0])

    def _plan(self, collection: Collection) -> Plan:
        """Whose vectors a collection holds is written there; where it is not, they are taken for our model's."""
        origin = collection.provenance
        if origin is None:
            model, tag = self._settings.embed_model, self._own_tag
        else:
            tag = resolve("embed", origin.model).tag
            if tag != origin.tag:
                raise ConfigurationError(
                    f"collection {collection.name!r} holds vectors of {origin.tag}, but its model {origin.model!r} is "
                    f"{tag} in this release: embed it anew"
                )
            model = self._settings.embed_model if tag == self._own_tag else origin.model
        template = self._template or TextTemplate((origin and origin.template) or _DEFAULT_TEXT)
        return Plan(collection=collection, model=model, tag=tag, template=template)
