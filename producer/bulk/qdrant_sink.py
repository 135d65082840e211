"""A new collection of Qdrant as a sink of vectors: filled, then checked; it is for `switch` to show it to anyone."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from producer.bulk.collections import Collections, Layout
from producer.bulk.conditions import Conditions
from producer.bulk.ends import Embed, Embedded, Json, Source, Space, Totals
from producer.bulk.patience import Patience
from producer.bulk.qdrant_points import requests_of
from producer.bulk.qdrant_source import QdrantSource
from producer.bulk.verification import Sample, compare
from producer.errors import ConfigurationError, VerificationFailed
from producer.provenance import Provenance
from producer.qdrant import QdrantAddress, connect

_COSINE = "Cosine"


class QdrantSink:
    """Fills a collection. From a collection it takes over the distance, the payload indexes and the alias to switch."""

    ordered = False
    resumable = True

    def __init__(
        self,
        address: QdrantAddress,
        api_key: str = "",
        source: Source | None = None,
        *,
        patience: Patience | None = None,
    ) -> None:
        self.name = address.name
        self._address = address
        self._collection = address.collection
        self._api_key = api_key
        self._source = source if isinstance(source, QdrantSource) else None
        self._patience = patience or Patience()
        self._collections: Collections | None = None
        self._overwrite = False
        self._provenance: Provenance | None = None
        self._sample = Sample("")

    def check(self, space: Space, *, resuming: bool, overwrite: bool) -> None:
        """Look without changing anything.

        Raises:
            ConfigurationError: the name is an alias, what an alias points at or the source; or the collection is
                there, and neither this run's nor to be overwritten; or the source has other than single vectors.
            StoreUnavailable: the store is away or refuses.
        """
        self._overwrite = overwrite
        source = self._source_layout()
        if self._address.path and not (Path(self._address.path) / "meta.json").exists():
            _check_writable(Path(self._address.path))
            return
        opened = self._opened()
        aliases = opened.aliases()
        if self._collection in aliases:
            raise ConfigurationError(
                f"{self._collection} is an alias (of {aliases[self._collection]}): write to a new collection, then "
                f"move it with: headrace reembed switch {self._collection}"
            )
        serving = [alias for alias, collection in aliases.items() if collection == self._collection]
        if serving:
            done = resuming and _is_done(opened.layout(self._collection), space)
            advice = "this run is complete" if done else "write to a collection of another name"
            raise ConfigurationError(f"the alias {serving[0]} serves {self._collection}: {advice}")
        if self._source and self._is_here(self._source) and self._source.collection == self._collection:
            raise ConfigurationError(f"{self._collection} is the source: write to a collection of another name")
        if not overwrite and opened.exists(self._collection):
            self._check_free(opened, space, _distance(source), resuming=resuming)

    def begin(self, space: Space, mark: Json = None) -> None:
        """Make the collection, or take it up at a mark: the number of rows written, and the sample so far.

        Raises:
            ConfigurationError: as `check`; or the collection of the run is gone; or the server keeps no metadata.
        """
        self.check(space, resuming=mark is not None, overwrite=self._overwrite and mark is None)
        source = self._source_layout()
        self._provenance = self._describe(space)
        made = False
        if mark is None:
            self._sample = Sample(space.run)
            made = self._make(space, _distance(source))
        else:
            self._sample = Sample(space.run, rows=mark["rows"], ids=mark["sample"])
            self._take_up(space)
        opened = self._opened()
        layout = opened.layout(self._collection)
        if layout.provenance != self._provenance:
            if made:
                opened.delete(self._collection)
            raise ConfigurationError(
                f"Qdrant at {opened.place} keeps no metadata of collections: it must be 1.16 or newer"
            )
        if source:
            missing = {field: schema for field, schema in source.indexes.items() if field not in layout.indexes}
            self._patience(lambda: opened.add_indexes(self._collection, missing))

    def write(self, rows: Sequence[Embedded]) -> Json:
        """Write rows; a store that is away is waited for, since a point written twice is one point.

        Raises:
            StoreUnavailable: it stays away, or refuses.
        """
        opened = self._opened()
        for points in requests_of(rows):
            self._patience(lambda points=points: opened.upsert(self._collection, points))  # type: ignore[misc]
            for point in points:
                self._sample.add(point.id)
        return {"rows": self._sample.rows, "sample": list(self._sample.ids)}

    def finish(self, totals: Totals, embed: Embed) -> str:
        """Count the points and embed some of them again; only then say that the collection is complete.

        What has come to the source or gone from it meanwhile is told and no failure: a collection in use changes.

        Raises:
            VerificationFailed: the count is another, points are missing, or vectors are not those of their texts.
        """
        if self._provenance is None:
            raise VerificationFailed(f"{self._collection} was not begun")
        opened, expected = self._opened(), self._provenance
        if self._patience(lambda: opened.layout(self._collection)).provenance != expected:
            raise VerificationFailed(f"{self._collection} was taken over by another run")
        points = self._patience(lambda: opened.count(self._collection))
        told = _count_told(self._collection, points, totals)
        compared = self._patience(lambda: compare(opened, self._collection, self._sample.ids, expected.template, embed))
        missed = self._patience(lambda: self._missed(totals))
        complete = dataclasses.replace(expected, state="complete", partial=totals.partial, rejected=totals.rejected)
        self._patience(lambda: opened.describe(self._collection, complete))
        if compared.points:
            told += f", {compared.points} of them embedded again: least cosine {compared.least_cosine:.4f}"
        return told + missed

    def close(self) -> None:
        """Let go of the store."""
        if self._collections:
            self._collections.client.close()
            self._collections = None

    def _check_free(self, opened: Collections, space: Space, distance: str, *, resuming: bool) -> None:
        """Refuse a collection that is there, unless it is this run's own, or empty and of the right make."""
        name, layout = self._collection, opened.layout(self._collection)
        way_out = "write to another collection, or pass --overwrite"
        if layout.dimension is None:
            raise ConfigurationError(
                f"{name} has named, sparse or multiple vectors, a run writes single ones: {way_out}"
            )
        if layout.dimension != space.dimension:
            raise ConfigurationError(
                f"{name} has {layout.dimension} dimensions, {space.model} has {space.dimension}: {way_out}"
            )
        if layout.distance != distance:
            raise ConfigurationError(f"{name} has the distance {layout.distance}, not {distance}: {way_out}")
        provenance = layout.provenance
        if provenance and provenance.run == space.run and (resuming or provenance.state == "filling"):
            return
        if provenance and provenance.state == "filling":
            raise ConfigurationError(f"{name} is half-filled by another run: resume that one, {way_out}")
        if points := opened.count(name):
            raise ConfigurationError(f"{name} has {points:,} points: {way_out}")

    def _make(self, space: Space, distance: str) -> bool:
        """Make the collection anew, but keep an empty one of the right make, with its own settings; whether it did."""
        opened, name = self._opened(), self._collection
        if opened.exists(name):
            layout = opened.layout(name)
            fits = (layout.dimension, layout.distance) == (space.dimension, distance)
            if fits and not opened.count(name):
                opened.describe(name, self._provenance_now())
                return False
            opened.delete(name)
        opened.create(name, dimension=space.dimension, distance=distance, provenance=self._provenance_now())
        return True

    def _take_up(self, space: Space) -> None:
        opened = self._opened()
        found = opened.layout(self._collection).provenance if opened.exists(self._collection) else None
        if found is None or found.run != space.run:
            raise ConfigurationError(
                f"{self._collection} is no longer what that run was filling: start it without --resume"
            )
        opened.describe(self._collection, self._provenance_now())

    def _describe(self, space: Space) -> Provenance:
        told = Provenance(**dataclasses.asdict(space), state="filling")
        if not (self._source and self._is_here(self._source) and self._source.alias):
            return told
        return dataclasses.replace(told, alias=self._source.alias, replaces=self._source.collection)

    def _provenance_now(self) -> Provenance:
        assert self._provenance  # noqa: S101 - set by `begin` before
        return self._provenance

    def _source_layout(self) -> Layout | None:
        """What the source is made of, if it is a collection whose vectors this sink can replace."""
        if self._source is None:
            return None
        layout = self._source.layout()
        if layout.dimension is None:
            raise ConfigurationError(
                f"{self._source.collection} has named, sparse or multiple vectors, which the new collection would "
                "lack: re-embed it into a file first"
            )
        return layout

    def _missed(self, totals: Totals) -> str:
        """In words, by how many points a source that is a collection differs from what was read."""
        if self._source is None or totals.partial:
            return ""
        more = self._source.count(Conditions()) - totals.rows - totals.rejected
        if not more:
            return ""
        meanwhile = f"; meanwhile {self._source.collection} has got {{}}: "
        if more > 0:
            return meanwhile.format(f"{more:,} more points") + f"{self._collection} lacks them, begin anew to have them"
        return meanwhile.format(f"{-more:,} points fewer") + f"{self._collection} still holds what is gone there"

    def _is_here(self, source: QdrantSource) -> bool:
        return source.address.place == self._address.place

    def _opened(self) -> Collections:
        if self._collections is None:
            client = connect(self._address, self._api_key, create=True)
            self._collections = Collections(client, self._address.place)
        return self._collections


def _distance(source: Layout | None) -> str:
    return source.distance if source and source.distance else _COSINE


def _is_done(layout: Layout, space: Space) -> bool:
    """Whether a collection says that this very run has filled it."""
    found = layout.provenance
    return found is not None and found.run == space.run and found.state == "complete"


def _count_told(name: str, points: int, totals: Totals) -> str:
    """The count in words, if it is what it should be."""
    doubled = totals.rows - points
    if doubled < 0 or (doubled and (totals.unique_ids or not points)):
        who = "writes to it" if doubled < 0 else "deletes from it"
        raise VerificationFailed(
            f"{name} has {points:,} points, though {totals.rows:,} rows were written: something else {who}"
        )
    return f"{points:,} points" + (f" ({doubled:,} rows had an identity that came before)" if doubled else "")


def _check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise ConfigurationError(f"{folder} cannot be made: {existing} is no folder that can be written")
