"""Which source or sink a URL or path means; a new kind of end is one more class and one more line here."""

from pathlib import Path

from producer.bulk.ends import Sink, Source
from producer.bulk.jsonl_sink import JsonlSink
from producer.bulk.jsonl_source import JsonlSource
from producer.bulk.parquet_sink import ParquetSink
from producer.bulk.parquet_source import ParquetSource
from producer.bulk.qdrant_sink import QdrantSink
from producer.bulk.qdrant_source import QdrantSource
from producer.qdrant import SCHEMES, QdrantAddress

STANDARD = "-"
"""Standard input or output."""


def open_source(url: str, *, id_field: str = "id", api_key: str = "") -> Source:
    """A source by its URL or path: a collection of Qdrant's (with its API key), a Parquet file, or JSON Lines.

    Raises:
        ConfigurationError: it is written like a URL of Qdrant's and is none.
    """
    if _is_qdrant(url):
        return QdrantSource(QdrantAddress.parse(url), api_key, id_field=id_field)
    if url.endswith(".parquet"):
        return ParquetSource(url, id_field=id_field)
    return JsonlSource(url, id_field=id_field)


def open_sink(url: str, *, source: Source | None = None, api_key: str = "") -> Sink:
    """A sink by its URL or path; a collection takes over the payload indexes of a source that is one, too.

    Raises:
        ConfigurationError: it is written like a URL of Qdrant's and is none.
    """
    if _is_qdrant(url):
        return QdrantSink(QdrantAddress.parse(url), api_key, source=source)
    if url.endswith(".parquet"):
        return ParquetSink(url)
    return JsonlSink(url)


def absolute(end: str) -> str:
    """An end as another process in another folder would have to name it."""
    if _is_qdrant(end):
        return QdrantAddress.parse(end).name
    return end if end == STANDARD else str(Path(end).expanduser().absolute())


def _is_qdrant(end: str) -> bool:
    return end.split(":", 1)[0] in SCHEMES and ":" in end
