"""Tables and lines for people: the status of queues, embeddings, rankings."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from producer.bulk.survey import Survey
from producer.results import EmbedResult, RerankResult
from producer.state import QueueState, WorkerState

_WIDE = 1000
_SAMPLE_WIDTH = 100


def status_view(states: Sequence[QueueState]) -> list[RenderableType]:
    """For each queue that is or was in use a line, its lanes and its workers."""
    used = [state for state in states if state.used]
    return [part for state in used for part in _queue_view(state)] or [Text("No pool has run here, and nothing waits.")]


def _queue_view(state: QueueState) -> list[RenderableType]:
    hits, misses = state.counters.get("hits", 0), state.counters.get("misses", 0)
    model = f"model {printable(state.card.model)}" if state.card else "no pool has served it lately"
    truncated, expired = state.counters.get("truncated", 0), state.counters.get("expired", 0)
    head = Text(f"\n{state.task}:{printable(state.tag)}", style="bold")
    head.append(f"  {model}\ncache hits {hits}, misses {misses} · ", style="not bold")
    head.append(f"dead letters kept {state.dead}, expired {expired}, texts truncated {truncated}", style="not bold")
    lanes = _table("lane", "waiting", "in flight", "rows", "text", "oldest", "died")
    for lane, load in state.lanes.items():
        age = duration(load.oldest_age_ms / 1000) if load.oldest_age_ms else "-"
        jobs = (str(load.waiting), str(load.in_flight), str(load.rows), decimal(load.size_bytes))
        lanes.add_row(lane.value, *jobs, age, str(load.dead))
    workers = _table("worker", "state", "in flight", "rows", "rows/s", "progress")
    for worker in state.workers:
        beat = worker.heartbeat
        # What a silent worker held has been taken over by others.
        held, rate = (str(beat.in_flight_rows), f"{beat.rows_per_s:.1f}") if worker.alive else ("-", "-")
        counts = (held, str(beat.rows_done), rate)
        name, state_word = plain(worker.name), plain(worker_state(worker))  # whoever beats chooses both
        workers.add_row(name, state_word, *counts, f"{duration(worker.progress_age_ms / 1000)} ago")
    return [head, lanes, workers if workers.row_count else Text("no workers")]


def _table(*headings: str) -> Table:
    table = Table()
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position and heading != "state" else "left")
    return table


def status_json(states: Sequence[QueueState]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "queues": [
            {
                "task": state.task,
                "tag": state.tag,
                "model": state.card.model if state.card else None,
                "dead": state.dead,
                "hits": state.counters.get("hits", 0),
                "misses": state.counters.get("misses", 0),
                "counters": state.counters,
                "lanes": {
                    lane.value: {
                        "waiting": load.waiting,
                        "in_flight": load.in_flight,
                        "rows": load.rows,
                        "bytes": load.size_bytes,
                        "oldest_age_ms": load.oldest_age_ms,
                        "dead": load.dead,
                    }
                    for lane, load in state.lanes.items()
                },
                "workers": [
                    {
                        "name": worker.name,
                        "state": worker_state(worker),
                        "model_loaded": worker.heartbeat.model_loaded,
                        "in_flight_rows": worker.heartbeat.in_flight_rows,
                        "rows_done": worker.heartbeat.rows_done,
                        "rows_per_s": worker.heartbeat.rows_per_s,
                        "started_at_ms": worker.heartbeat.started_at_ms,
                        "progress_age_ms": worker.progress_age_ms,
                    }
                    for worker in state.workers
                ],
            }
            for state in states
        ]
    }


def worker_state(worker: WorkerState) -> str:
    """One word: what it says of itself, unless it is silent or stuck."""
    if not worker.alive:
        return "silent"
    if worker.heartbeat.model_loaded and not worker.healthy:
        return "stalled"
    return worker.heartbeat.state


def embed_table(texts: Sequence[str], result: EmbedResult) -> Table:
    """The first numbers of each vector, and where it came from."""
    table = Table(title=f"{result.model}, {result.dimension} dimensions, {result.latency_ms:.1f} ms")
    for heading in ("text", "from", "vector"):
        table.add_column(heading)
    for index, text in enumerate(texts):
        numbers = " ".join(f"{number:+.3f}" for number in result.embeddings[index][:5])
        table.add_row(Text(clip(text, 50)), "cache" if result.cached[index] else "worker", f"{numbers} …")
    return table


def rerank_table(result: RerankResult) -> Table:
    """The ranking, best first."""
    table = Table(title=f"{result.model}, {result.latency_ms:.1f} ms")
    for heading in ("rank", "score", "index", "document"):
        table.add_column(heading, justify="left" if heading == "document" else "right")
    for rank, ranked in enumerate(result.results, 1):
        table.add_row(str(rank), f"{ranked.score:.4f}", str(ranked.index), Text(clip(ranked.document, 80)))
    return table


def survey_table(survey: Survey) -> Table:
    """What a re-embedding would take."""
    table = Table(title="Dry run: nothing was written", title_justify="left", show_header=False)
    unknown = "unknown: no worker has computed anything yet; embed a few rows first (--limit)"
    table.add_row("rows", f"{survey.rows:,}")
    table.add_row("cached", f"{survey.cached:,}")
    if survey.rejected:
        table.add_row("to be rejected", f"{survey.rejected:,}; the first: {printable(survey.first_reject)}")
    table.add_row("to compute", f"{survey.rows - survey.cached:,} rows, {survey.missing_bytes:,} bytes of text")
    table.add_row("tokens, about", unknown if survey.tokens is None else f"{survey.tokens:,}")
    table.add_row("model time, about", unknown if survey.estimate_s is None else duration(survey.estimate_s))
    for number, text in enumerate(survey.sample):
        table.add_row("" if number else "texts as sent", plain(clip(text, _SAMPLE_WIDTH)))
    return table


def health_reason(workers: Sequence[WorkerState]) -> str:
    """Why nobody is healthy, in a few words."""
    states = sorted({worker_state(worker) for worker in workers})
    return f"they are {' and '.join(states)}" if states else "none has reported"


def counted(count: int, noun: str) -> str:
    """A number and what it counts."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def printable(text: str) -> str:
    """What cannot be printed as escapes, so that no text steers the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def plain(text: str) -> Text:
    """A cell that is neither markup nor control sequence."""
    return Text(printable(text) or "-")


def clip(text: str, width: int) -> str:
    """Fit a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def stream_name(path: str, direction: str) -> str:
    """Name a file, or the standard stream that "-" stands for."""
    return f"standard {direction}" if path == "-" else path


def duration(seconds: float) -> str:
    """A time span as people say it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def show(*parts: RenderableType, wide: bool = False) -> None:
    """Print to standard output, as wide as the terminal; or `wide`, so that each row is one line to search for."""
    console = Console(width=_WIDE) if wide else Console()
    for part in parts:
        console.print(part)
