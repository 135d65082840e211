"""A collection of Qdrant as a source of records: scrolled by page in the order of its ids, without its vectors."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from producer.bulk.collections import Collections, Layout
from producer.bulk.conditions import Conditions
from producer.bulk.ends import Json, Record
from producer.bulk.patience import Patience
from producer.bulk.qdrant_filter import filter_of
from producer.bulk.qdrant_points import point_id
from producer.qdrant import QdrantAddress, connect, store_errors
from producer.templates import look_up

if TYPE_CHECKING:
    from qdrant_client.http import models

_POINTS_OF_A_PAGE = 256
_POINTS_OF_AN_EMBEDDED_PAGE = 2048
"""The embedded engine sorts all its points for each page."""


class QdrantSource:
    """Reads a collection, or the one that an alias points at when the run begins.

    A record's identity is the point's id, or what that was made of if the payload still has it in `id_field`.
    """

    unique_ids = True

    def __init__(
        self,
        address: QdrantAddress,
        api_key: str = "",
        *,
        id_field: str = "id",
        points_per_page: int = 0,
        patience: Patience | None = None,
    ) -> None:
        self.name = address.name
        self.address = address
        self._api_key = api_key
        self._id_field = id_field
        self._page = points_per_page or (_POINTS_OF_AN_EMBEDDED_PAGE if address.path else _POINTS_OF_A_PAGE)
        self._patience = patience or Patience()
        self._collections: Collections | None = None
        self._resolved: tuple[str, str] | None = None

    def check(self) -> None:
        """Find the collection: raise ConfigurationError if there is none, StoreUnavailable if the store is away."""
        self._resolve()

    @property
    def collection(self) -> str:
        """The collection it reads, whatever the alias does meanwhile."""
        return self._resolve()[0]

    @property
    def alias(self) -> str:
        """The alias it was named by, or ""."""
        return self._resolve()[1]

    def layout(self) -> Layout:
        """What the collection is made of."""
        return self._opened().layout(self.collection)

    def fingerprint(self) -> Json:
        """The collection: its points may change meanwhile, but an alias that was moved means another one."""
        return self.collection

    def usual_template(self) -> str:
        """The template of the texts that the collection was filled with, if a run filled it."""
        provenance = self.layout().provenance
        return provenance.template if provenance else ""

    def count(self, where: Conditions) -> int:
        return self._opened().count(self.collection, filter_of(where))

    def records(self, where: Conditions, after: Json = None) -> Iterator[Record]:
        """Yield the records that fit, by id; `after` is the id of a point. A store that is away is waited for.

        Raises:
            StoreUnavailable: it stays away, or refuses.
        """
        scroll_filter = filter_of(where)
        offset = after
        while True:
            points, offset = self._patience(lambda offset=offset: self._scroll(scroll_filter, offset))  # type: ignore[misc]
            for point in points:
                fields = point.payload or {}
                if point.id != after and where.fit(fields):
                    identity = self._identity(point.id, fields)
                    yield Record(id=identity, fields=fields, position=point.id, place=f"point {point.id}")
            if offset is None:
                return

    def close(self) -> None:
        """Let go of the store."""
        if self._collections:
            self._collections.client.close()
            self._collections = None

    def _identity(self, of_point: str | int, fields: Mapping[str, Any]) -> str | int:
        named = look_up(fields, self._id_field)
        return named if isinstance(named, str | int) and point_id(named) == of_point else of_point

    def _scroll(self, scroll_filter: "models.Filter | None", offset: Any) -> tuple[list[Any], Any]:
        opened = self._opened()
        with store_errors(self.address.place):
            return opened.client.scroll(
                self.collection,
                scroll_filter=scroll_filter,
                limit=self._page,
                offset=offset,
                with_payload=True,
                with_vectors=False,
            )

    def _resolve(self) -> tuple[str, str]:
        if self._resolved is None:
            self._resolved = self._opened().resolve(self.address.collection)
        return self._resolved

    def _opened(self) -> Collections:
        if self._collections is None:
            self._collections = Collections(connect(self.address, self._api_key), self.address.place)
        return self._collections
