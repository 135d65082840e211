"""Which source or sink a URL or path means; a new kind of end is one more class and one more line here."""

from pathlib import Path

from producer.bulk.ends import Sink, Source
from producer.bulk.jsonl_sink import JsonlSink
from producer.bulk.jsonl_source import JsonlSource
from producer.bulk.order import Order
from producer.bulk.parquet_sink import ParquetSink
from producer.bulk.parquet_source import ParquetSource
from producer.bulk.qdrant_sink import QdrantSink
from producer.bulk.qdrant_source import QdrantSource
from producer.qdrant import SCHEMES, QdrantAddress
from producer.settings import StoreSettings

STANDARD = "-"
"""Standard input or output."""


def open_source(order: Order, store: StoreSettings) -> Source:
    """The order's source: a collection of Qdrant's, a Parquet file, or JSON Lines.

    Raises:
        ConfigurationError: it is written like a URL and is none of ours.
    """
    if _is_qdrant(order.source):
        return QdrantSource(QdrantAddress.parse(order.source), store.qdrant_api_key)
    if order.source.endswith(".parquet"):
        return ParquetSource(order.source, id_field=order.id_field)
    return JsonlSource(order.source, id_field=order.id_field)


def open_sink(order: Order, store: StoreSettings, source: Source) -> Sink:
    """The order's sink; a collection takes over the payload indexes of a source that is one, too.

    Raises:
        ConfigurationError: it is written like a URL and is none of ours.
    """
    if _is_qdrant(order.sink):
        return QdrantSink(QdrantAddress.parse(order.sink), store.qdrant_api_key, source=source)
    if order.sink.endswith(".parquet"):
        return ParquetSink(order.sink)
    return JsonlSink(order.sink)


def absolute(end: str) -> str:
    """An end as another process in another folder would have to name it."""
    if _is_qdrant(end):
        return QdrantAddress.parse(end).name
    return end if end == STANDARD else str(Path(end).expanduser().absolute())


def _is_qdrant(end: str) -> bool:
    return end.split(":", 1)[0] in SCHEMES and ":" in end
