"""Carries an order out from its plain values: opens both ends and a producer, and closes them again."""

from collections.abc import Callable
from pathlib import Path

from producer.bulk.ends import Sink, Source
from producer.bulk.order import Order
from producer.bulk.pipeline import Outcome, reembed
from producer.bulk.progress import Progress
from producer.bulk.urls import open_sink, open_source
from producer.client import Producer
from producer.settings import ProducerSettings, StoreSettings

_DEFAULT_STATE = "~/.local/state/headrace"


def run_order(
    order: Order,
    settings: ProducerSettings,
    store: StoreSettings,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Do what `reembed` does, with ends named by URL; raises what it raises."""
    source, sink = open_ends(order, store)
    with Producer(settings) as producer:
        return reembed(producer, source, sink, order, state_dir=state_directory(store), on_progress=on_progress)


def open_ends(order: Order, store: StoreSettings) -> tuple[Source, Sink]:
    """Both ends of an order; nothing is opened before they are used.

    Raises:
        ConfigurationError: one is written like a URL of Qdrant's and is none.
    """
    source = open_source(order.source, id_field=order.id_field, api_key=store.qdrant_api_key)
    return source, open_sink(order.sink, source=source, api_key=store.qdrant_api_key)


def state_directory(store: StoreSettings) -> Path:
    """The folder for checkpoints and rejects."""
    return Path(store.state_dir or _DEFAULT_STATE).expanduser().absolute()
