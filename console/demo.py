"""`headrace demo`: everything on one machine with the offline models, on 100 sample records, in about half a minute."""

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from console.stack import Stack
from console.up import OFFLINE_MODELS
from console.views import clip
from producer.client import Producer
from producer.results import RerankResult, Vector
from producer.settings import ProducerSettings, load
from producer.state import QueueState

_READY_S = 120.0
_SETTLE_S = 8.0
_CANDIDATES = 20
_SHOWN = 3
_OTHER_COLUMNS = 38
"""What the table needs beside a record's text."""


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """One question's ranking, and what it took the first and the second time."""

    query: str
    ranking: RerankResult
    cold_ms: float
    cached_ms: float


def run_demo(environ: Mapping[str, str]) -> None:
    """Start, embed, search, rerank, ask again, show, stop.

    Raises:
        ConfigurationError: there is no Redis server or no offline model to start.
    """
    console = Console()
    environ = {"HEADRACE_LOG_LEVEL": "error", **environ, **OFFLINE_MODELS, "HEADRACE_NAMESPACE": "demo"}
    texts, queries = (
        [line["text"] for line in _lines("records.jsonl")],
        [line["query"] for line in _lines("queries.jsonl")],
    )
    console.print("[bold]Headrace demo[/]: text in, vectors and rankings out, over Redis streams\n")
    started = time.monotonic()
    with Stack(environ, port=0) as stack:
        settings = load(ProducerSettings, stack.environ)
        with Producer(settings) as producer:
            with console.status("starting an embedded Redis, an embed pool and a rerank pool …"):
                stack.wait_ready(producer, _READY_S)
            console.print(f"Redis and both pools are up, offline models loaded: {time.monotonic() - started:.1f} s")
            with console.status(f"embedding {len(texts)} records on the bulk lane …"):
                vectors, took_s = _embed(producer, texts)
            unique = len(set(texts))
            console.print(
                f"{len(texts)} records embedded on the bulk lane: {took_s:.1f} s, {unique / took_s:.0f} rows/s"
            )
            console.print(f"({len(texts) - unique} of them are duplicates of others: computed once)\n", style="dim")
            with console.status("asking …"):
                answers = [_ask(producer, query, texts, vectors) for query in queries]
            console.print(_answer_table(answers, width=max(40, console.width - _OTHER_COLUMNS)))
        # A producer's last counts are sent when it closes, a worker's with its next heartbeat.
        with Producer(settings) as observer, console.status("counting …"):
            states = _settled(observer)
        console.print(_queue_table(states))
    program = "headrace" if shutil.which("headrace") else sys.argv[0]
    going_on = f"[bold]{escape(program)} up --offline[/]"
    console.print(f"Everything that was started is stopped again. To go on: {going_on}", soft_wrap=True)


def _settled(observer: Producer) -> list[QueueState]:
    """Read the queues once the workers have counted every row that was sent to them, or after a while."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        states = observer.queue_states()
        counted = all(state.counters.get("rows", 0) >= state.counters.get("misses", 0) for state in states)
        if counted or time.monotonic() > deadline:
            return states
        time.sleep(0.2)


def _embed(producer: Producer, texts: Sequence[str]) -> tuple[Vector, float]:
    started = time.monotonic()
    vectors = np.stack(list(producer.iter_embed(texts, kind="passage")))
    return vectors, time.monotonic() - started


def _ask(producer: Producer, query: str, texts: Sequence[str], vectors: Vector) -> _Answer:
    ranking, cold_ms = _search(producer, query, texts, vectors)
    _, cached_ms = _search(producer, query, texts, vectors)
    return _Answer(query=query, ranking=ranking, cold_ms=cold_ms, cached_ms=cached_ms)


def _search(producer: Producer, query: str, texts: Sequence[str], vectors: Vector) -> tuple[RerankResult, float]:
    """Embed the query, take the nearest 20 different texts, rerank them; with the time in milliseconds."""
    started = time.perf_counter()
    similarity = vectors @ producer.embed(query, kind="query")
    nearest = dict.fromkeys(texts[index] for index in np.argsort(-similarity))
    ranking = producer.rerank(query, list(nearest)[:_CANDIDATES], top_n=_SHOWN)
    return ranking, (time.perf_counter() - started) * 1000


def _answer_table(answers: Sequence[_Answer], width: int) -> Table:
    title = f"{len(answers)} questions: the {_CANDIDATES} nearest records by vector, reranked, and how long that took"
    table = Table(title=title, title_justify="left")
    table.add_column(f"question, and the best {_SHOWN} records")
    for heading in ("score", "cold", "cached"):
        table.add_column(heading, justify="right", no_wrap=True)
    for answer in answers:
        question = Text(answer.query, style="bold cyan")
        table.add_row(question, "", f"{answer.cold_ms:.0f} ms", Text(f"{answer.cached_ms:.1f} ms", style="green"))
        for rank, ranked in enumerate(answer.ranking.results, 1):
            table.add_row(Text(f"{rank}. {clip(ranked.document, width)}"), f"{ranked.score:.2f}", "", "")
        table.add_section()
    return table


def _queue_table(states: Sequence[QueueState]) -> Table:
    table = Table(title="What went through the queues", title_justify="left")
    table.add_column("")
    for state in states:
        table.add_column(f"{state.task} pool", justify="right")
    counters = (
        ("rows computed", "rows"),
        ("batches", "batches"),
        ("tokens", "tokens"),
        ("texts cut to fit", "truncated"),
    )
    for label, counter in (*counters, ("cache hits", "hits"), ("cache misses", "misses")):
        table.add_row(label, *(str(state.counters.get(counter, 0)) for state in states))
    table.add_row("dead letters", *(str(state.dead) for state in states))
    left = [sum(lane.waiting + lane.in_flight for lane in state.lanes.values()) for state in states]
    table.add_row("left on the streams", *map(str, left))
    return table


def _lines(name: str) -> list[dict[str, Any]]:
    text = files("console").joinpath(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
