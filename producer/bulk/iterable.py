"""Records of a Python iterable as a source, for programs that have them at hand."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from producer.bulk.conditions import Conditions
from producer.bulk.ends import Json, Record, Spoilt
from producer.bulk.identity import record_of
from producer.errors import ConfigurationError


class IterableSource:
    """Mappings in their order. A position is how many are behind, so a run goes on only if they come alike again."""

    unique_ids = False

    def __init__(
        self,
        records: Iterable[Mapping[str, Any]],
        *,
        id_field: str = "id",
        name: str = "iterable",
        count: int | None = None,
    ) -> None:
        """`name` is part of what identifies a run; `count` is how many there are, for who knows."""
        self.name = name
        self._records = records
        self._id_field = id_field
        self._count = count
        self._spent = False

    def check(self) -> None:
        """There is nothing to open."""

    def fingerprint(self) -> Json:
        """None: there is no telling whether they are the same."""

    def usual_template(self) -> str:
        """Nothing here says how texts are made."""
        return ""

    def count(self, where: Conditions) -> int | None:
        """What the caller said; None with conditions."""
        return None if where else self._count

    def close(self) -> None:
        """Nothing stays open once nobody asks for records."""

    def records(self, where: Conditions, after: Json = None) -> Iterator[Record | Spoilt]:
        """Yield the records that fit, after a position.

        Raises:
            ConfigurationError: they come from an iterator, which has been read before.
        """
        if self._spent:
            raise ConfigurationError(f"{self.name} is an iterator and can be read only once: pass what makes iterators")
        self._spent = isinstance(self._records, Iterator)
        behind = after or 0
        for number, fields in enumerate(islice(self._records, behind, None), behind + 1):
            place = f"{self.name} record {number}"
            if not isinstance(fields, Mapping):
                yield Spoilt(reason="is not a mapping", position=number, place=place)
            elif where.fit(fields):
                yield record_of(fields, self._id_field, position=number, place=place)
