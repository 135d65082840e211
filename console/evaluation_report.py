"""What `headrace eval` found, as a table, as JSON, and as files."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from console.evaluation import AGREEMENT_DEPTH, Agreement
from console.trec import Run, run_lines
from console.views import plain
from producer.errors import ConfigurationError

Owner = Literal["own", "against"]
Kind = Literal["embed", "rerank", "run"]

_HEADINGS = {
    ("own", "embed"): "embedding",
    ("own", "rerank"): "with rerank",
    ("against", "embed"): "the other",
    ("against", "rerank"): "with rerank",
    ("against", "run"): "the other",
}
_MEANINGS = {"RR@10": "RR@10 (MRR)", "Success@1": "Success@1 (top 1)"}


@dataclass(frozen=True, kw_only=True)
class Order:
    """One order of the documents: what made it, and what it is worth.

    `agreement` is with the other system's order of the same kind, or with the only one that a run file holds.
    """

    whose: Owner
    kind: Kind
    made_by: str
    run: Run
    measures: dict[str, float]
    agreement: Agreement | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All orders of one judged set, one's own first; `candidates` is how many documents of a query were reranked."""

    dataset: str
    queries: int
    documents: int
    candidates: int
    rerank_model: str
    orders: tuple[Order, ...]
    against: str | None = None


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The same for programs; orders without their documents, which run files hold."""
    orders = [
        {
            "whose": order.whose,
            "order": order.kind,
            "made_by": order.made_by,
            "run": order.run.name,
            "measures": order.measures,
            "agreement": asdict(order.agreement) if order.agreement else None,
        }
        for order in evaluation.orders
    ]
    return {
        "dataset": evaluation.dataset,
        "queries": evaluation.queries,
        "documents": evaluation.documents,
        "candidates": evaluation.candidates,
        "against": evaluation.against,
        "orders": orders,
    }


def as_view(evaluation: Evaluation) -> list[RenderableType]:
    """Lines on who ranked what, and a table: a column for each order, and one for what rerank gains or loses."""
    orders = evaluation.orders
    agreements = [order.agreement for order in orders]
    head = f"{evaluation.dataset}: {evaluation.queries} judged queries, {evaluation.documents} documents"
    notes = [f"embedding: {orders[0].made_by}"]
    if evaluation.candidates:
        notes.append(f"rerank of the first {evaluation.candidates}: {evaluation.rerank_model}")
    rows = [(_MEANINGS.get(name, name), [order.measures[name] for order in orders]) for name in orders[0].measures]
    compared = [found for found in agreements if found]
    if compared:
        notes.append(f"the other: {evaluation.against}, which ranks {compared[0].queries} of the queries")
        rows.append(("same top 1 as the other", [found.top_1 for found in compared]))
        rows.append((f"recall@{AGREEMENT_DEPTH} of the other", [found.recall_3 for found in compared]))
    table = Table()
    headings = [_HEADINGS[order.whose, order.kind] for order in orders]
    if evaluation.candidates:
        headings.insert(2, "gain")
    for heading in ["", *headings]:
        table.add_column(heading, justify="right" if heading else "left")
    for label, values in rows:
        cells = [f"{value:.4f}" for value in values]
        if evaluation.candidates:
            cells.insert(2, f"{values[1] - values[0]:+.4f}")
        table.add_row(label, *cells)
    return [Text(head, style="bold"), *map(plain, notes), table]


def check_folder(folder: Path) -> None:
    """Refuse, before anything is computed, a folder that could not be written to.

    Raises:
        ConfigurationError: it, or the folder it would be in, is not there, is none, or is closed to us.
    """
    place = folder if folder.exists() else folder.absolute().parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ConfigurationError(f"{folder} cannot be written: {place} is not a folder that one may write to")


def write_files(evaluation: Evaluation, folder: Path) -> None:
    """Write `eval.json` and a TREC run file for each order made here; each file appears as a whole, or not at all.

    Raises:
        ConfigurationError: a file cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        for order in evaluation.orders:
            if order.kind != "run":
                name = order.kind if order.whose == "own" else f"{order.whose}.{order.kind}"
                _write(folder / f"run.{name}.txt", run_lines(order.run))
        _write(folder / "eval.json", json.dumps(as_json(evaluation), indent=1).splitlines())
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror or error}") from error


def _write(path: Path, lines: Iterable[str]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
