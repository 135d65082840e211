"""The command `eval`: ranks a judged set through the queue, and prints what embedding and rerank are worth on it."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from console import views
from console.evaluation import agreement, measured
from console.evaluation_report import Evaluation, Order, Owner, as_json, as_view, check_folder, write_files
from console.judging import JudgedSet, packaged_set, read_set
from console.pools import require_pool
from console.progress import progress_bar
from console.ranking import by_embedding, by_reranking
from console.trec import Run, read_run
from producer import ConfigurationError, Producer, ProducerSettings, UnknownModel
from producer.settings import load
from workers.judged import measuring_library
from workers.options import Command, settings_options

_KEPT = 100
"""Documents in a run, unless more are asked for: as many as BEIR's figures are given for."""

_MOST_CANDIDATES = 1000


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is asked for; `candidates` is 0 without rerank."""

    candidates: int
    k: int

    @property
    def kept(self) -> int:
        return max(_KEPT, self.candidates, self.k)


@click.command("eval", cls=Command, epilog="Example: headrace eval --embed-model offline --rerank-model offline")
@click.argument("dataset", required=False, type=click.Path(path_type=Path))
@click.option("--qrels", type=click.Path(path_type=Path), help="File of judgements, instead of DATASET's own.")
@click.option(
    "--candidates",
    type=click.IntRange(1, _MOST_CANDIDATES),
    default=20,
    show_default=True,
    help="Documents a query to rerank.",
)
@click.option("--no-rerank", is_flag=True, help="Judge the embedding alone.")
@click.option("--k", type=click.IntRange(min=1), default=10, show_default=True, help="Depth of the recall R@k.")
@click.option("--against", metavar="RUN_OR_MODEL", help="TREC run file or embed model to compare with.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write eval.json and TREC run files into.")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object.")
@settings_options(ProducerSettings, leave_out={"lane_limit", "lane_limit_bytes"})
def main(
    *,
    dataset: Path | None,
    qrels: Path | None,
    candidates: int,
    no_rerank: bool,
    k: int,
    against: str | None,
    out: Path | None,
    as_object: bool,
    **flags: Any,
) -> None:
    """Judge rankings by known answers.

    Embeds DATASET through the queue, reranks, and prints nDCG@10, recall, MRR and top-1 accuracy with and without
    rerank. DATASET is a folder in BEIR's layout; left out, it is the packaged sample. To compare two rerankers, write
    the run of one with --out and compare the other --against that run file.
    """
    settings = load(ProducerSettings, os.environ, **flags)
    measuring_library()
    if out is not None:
        check_folder(out)
    judged = _judged(dataset, qrels, settings.max_text_bytes)
    plan = _Plan(candidates=0 if no_rerank else candidates, k=k)
    evaluation = _evaluate(settings, judged, plan, against)
    if out is not None:
        write_files(evaluation, out)
    if as_object:
        click.echo(json.dumps(as_json(evaluation)))
    else:
        views.show(*as_view(evaluation))


def _judged(dataset: Path | None, qrels: Path | None, max_text_bytes: int) -> JudgedSet:
    if dataset is None:
        return packaged_set(qrels=qrels, max_text_bytes=max_text_bytes)
    return read_set(dataset, name=dataset.absolute().name, qrels=qrels, max_text_bytes=max_text_bytes)


def _evaluate(settings: ProducerSettings, judged: JudgedSet, plan: _Plan, against: str | None) -> Evaluation:
    """Rank with the settings' models, and with the other's; all that can be refused is refused beforehand."""
    run = _read_other(against, judged) if against and Path(against).is_file() else None
    with Producer(settings) as producer:
        require_pool(producer, "embed", flag="--embed-model")
        if plan.candidates:
            require_pool(producer, "rerank", flag="--rerank-model")
        other = replace(settings, embed_model=against) if against and run is None else None
        if other is not None:
            _require_other(other)
        orders = tuple(_orders(producer, judged, plan))
    others: tuple[Order, ...] = ()
    if run is not None:
        measures = measured(judged.relevance, run.rankings, k=plan.k)
        others = (Order(whose="against", kind="run", made_by=str(against), run=run, measures=measures),)
    elif other is not None:
        with Producer(other) as producer:
            others = tuple(_orders(producer, judged, plan, "against"))
    return Evaluation(
        dataset=judged.name,
        queries=len(judged.queries),
        documents=len(judged.document_ids),
        candidates=plan.candidates,
        rerank_model=settings.rerank_model,
        orders=(*_compared(orders, others), *others),
        against=against,
    )


def _orders(producer: Producer, judged: JudgedSet, plan: _Plan, whose: Owner = "own") -> Iterator[Order]:
    """The order by embedding, and the one after rerank, if asked for."""
    settings = producer.settings
    with progress_bar(len(judged.document_ids)) as on_row:
        run = by_embedding(producer, judged, kept=plan.kept, on_row=on_row)
    measures = measured(judged.relevance, run.rankings, k=plan.k)
    yield Order(whose=whose, kind="embed", made_by=settings.embed_model, run=run, measures=measures)
    if not plan.candidates:
        return
    click.echo(f"reranking the first {plan.candidates} documents of {len(judged.queries)} queries", err=True)
    run = by_reranking(producer, judged, run, candidates=plan.candidates)
    measures = measured(judged.relevance, run.rankings, k=plan.k)
    made_by = f"{settings.embed_model} + {settings.rerank_model}"
    yield Order(whose=whose, kind="rerank", made_by=made_by, run=run, measures=measures)


def _compared(orders: tuple[Order, ...], others: tuple[Order, ...]) -> Iterator[Order]:
    """Each order with its agreement: with the other's of the same kind, or with a run file's only one."""
    if not others:
        yield from orders
        return
    for place, order in enumerate(orders):
        other = others[min(place, len(others) - 1)]
        yield replace(order, agreement=agreement(order.run.rankings, other.run.rankings))


def _read_other(against: str, judged: JudgedSet) -> Run:
    """Read a run file, and keep what it ranks for judged queries."""
    run = read_run(Path(against))
    rankings = {query_id: run.rankings[query_id] for query_id in judged.queries if query_id in run.rankings}
    if not rankings:
        raise ConfigurationError(f"{against} ranks nothing for the judged queries of {judged.name}")
    known = set(judged.document_ids)
    unknown = [document_id for ranking in rankings.values() for document_id in ranking if document_id not in known]
    if unknown:
        raise ConfigurationError(f"{against} ranks document {unknown[0]}, which {judged.name} does not hold")
    return replace(run, rankings=rankings)


def _require_other(settings: ProducerSettings) -> None:
    with Producer(settings) as producer:
        try:
            require_pool(producer, "embed")
        except UnknownModel as error:
            told = f"--against {settings.embed_model}"
            raise UnknownModel(f"{told}: there is no run file of that name, and no embed pool serves it") from error
