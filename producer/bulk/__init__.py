"""Re-embedding: a source of records, the bulk lane, a sink of vectors; memory flat at any length."""

from producer.bulk.ends import Embedded, Record, Sink, Source, Space, Spoilt, Totals
from producer.bulk.iterable import IterableSource
from producer.bulk.order import Order
from producer.bulk.pipeline import Outcome, reembed
from producer.bulk.progress import Progress
from producer.bulk.runs import run_order
from producer.bulk.urls import open_sink, open_source

__all__ = [
    "Embedded",
    "IterableSource",
    "Order",
    "Outcome",
    "Progress",
    "Record",
    "Sink",
    "Source",
    "Space",
    "Spoilt",
    "Totals",
    "open_sink",
    "open_source",
    "reembed",
    "run_order",
]
