"""The command that searches: a table of the results, and how long each stage took."""

import dataclasses
import json
import os
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from console.pools import require_pool
from console.views import clip, plain, show
from producer import (
    ConfigurationError,
    Producer,
    ProducerSettings,
    QdrantStore,
    SearchResults,
    SemanticSearch,
    UnknownModel,
)
from producer.requests import check_limit, check_user_id, clean_text
from producer.settings import StoreSettings, load
from producer.wire.models import resolve
from workers.options import Command, settings_options

_NOT_FOR_SEARCHING = {"bulk_timeout_s", "lane_limit", "lane_limit_bytes"}
_LEAST_TEXT_WIDTH = 24
_ID_WIDTH = 12
"""A UUID takes three lines of it, as a long text does."""

_TEXT_WIDTH = 80


@click.command("search", cls=Command, epilog="Example: headrace search 7 'where can I swim?' --limit 5")
@click.argument("user")
@click.argument("query")
@click.option("--limit", type=int, default=10, show_default=True, help="Print so many results at most, up to 100.")
@click.option(
    "--text",
    default="",
    metavar="TEMPLATE",
    help="Text to rerank, such as '{name} - {notes[:500]}'; without it, the one that the collection was filled with.",
)
@click.option("--user-field", default="user_id", show_default=True, help="Payload field that says whose a point is.")
@click.option("--no-rerank", is_flag=True, help="Leave the results in the order of their vectors.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options(StoreSettings, leave_out={"state_dir"})
@settings_options(ProducerSettings, leave_out=_NOT_FOR_SEARCHING)
def main(
    user: str, query: str, *, limit: int, text: str, user_field: str, no_rerank: bool, as_json: bool, **flags: Any
) -> None:
    """Search what belongs to a user.

    In the collection of Qdrant that HEADRACE_QDRANT_URL names: by vectors, then the best 20 reranked.
    """
    place = load(StoreSettings, os.environ, **flags)
    settings = load(ProducerSettings, os.environ, **flags)
    if not place.qdrant_url:
        raise ConfigurationError(
            "there is no collection to search: set HEADRACE_QDRANT_URL (--qdrant-url), such as "
            "qdrant://host:6333/contacts or qdrant+local:FOLDER#contacts"
        )
    check_user_id(user)
    check_limit(limit)
    clean_text(query, settings.max_text_bytes, what="query")
    store = QdrantStore(
        place.qdrant_url, api_key=place.qdrant_api_key, user_field=user_field, timeout_s=settings.timeout_s
    )
    with store, Producer(settings) as producer:
        _require_embed_pool(settings, store)
        missing = None if no_rerank else _missing_rerank_pool(producer)
        rerank = not no_rerank and missing is None
        with SemanticSearch(producer, store, text=text, rerank=rerank) as search:
            found = search.search(user, query, limit)
    if missing is not None:
        found = dataclasses.replace(found, fallback_used=True, fallback_reason=f"{missing.code}: {missing}")
    if as_json:
        click.echo(json.dumps(_as_json(found)))
    else:
        show(*_view(found, f"No results: no point of {found.collection} has {user!r} in its field {user_field!r}."))


def _require_embed_pool(settings: ProducerSettings, store: QdrantStore) -> None:
    """Check that the model is served whose vectors the collection holds."""
    origin = store.locate().provenance
    if origin and origin.tag != resolve("embed", settings.embed_model).tag:
        settings = dataclasses.replace(settings, embed_model=origin.model)
    with Producer(settings) as producer:
        require_pool(producer, "embed", flag="--embed-model")


def _missing_rerank_pool(producer: Producer) -> UnknownModel | None:
    """Why nothing can be reranked; to find it out by waiting would take a person's time."""
    try:
        require_pool(producer, "rerank", flag="--rerank-model")
    except UnknownModel as error:
        return error
    return None


def _as_json(found: SearchResults) -> dict[str, Any]:
    told = dataclasses.asdict(found)
    times = {stage: None if time_ms is None else round(time_ms, 3) for stage, time_ms in told["timings_ms"].items()}
    return {**told, "timings_ms": times}


def _view(found: SearchResults, nothing: str) -> list[Table | Text]:
    table = Table()
    for heading in ("rank", "vector\nrank", "vector\nscore", "rerank\nscore"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("text", min_width=_LEAST_TEXT_WIDTH)
    table.add_column("id", overflow="fold", max_width=_ID_WIDTH)
    for hit in found.results:
        reranked = "-" if hit.rerank_score is None else f"{hit.rerank_score:.4f}"
        numbers = (str(hit.rank), str(hit.vector_rank), f"{hit.vector_score:.4f}", reranked)
        table.add_row(*numbers, plain(clip(hit.text, _TEXT_WIDTH)), plain(str(hit.id)))
    told = [plain(f"not reranked: {found.fallback_reason}")] if found.fallback_used else []
    shown = table if found.results else plain(nothing)
    return [shown, *told, plain(_stages(found))]


def _stages(found: SearchResults) -> str:
    """One line: where it was searched, and what each stage took."""
    times = dataclasses.asdict(found.timings_ms)
    notes = {"embedding": " (cached)" if found.embedding_cached else "", "cache": " (a hit)" if found.cached else ""}
    parts = [
        f"{stage.replace('_', ' ')} {time_ms:.1f}{notes.get(stage, '')}"
        for stage, time_ms in times.items()
        if time_ms is not None
    ]
    return f"{found.collection} by {found.model}, in ms: {', '.join(parts)}"
