"""Reads judged sets in the layout of BEIR (Thakur et al. 2021), and checks them before anything is computed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.abc import Traversable
from importlib.resources import files

from console.trec import lines_of, read_judgements
from producer.errors import ConfigurationError
from producer.requests import clean_text
from producer.settings import ProducerSettings
from workers.judged import JudgedSample

_QRELS = (("qrels", "test.tsv"), ("qrels", "test.qrels"), ("qrels.txt",))


@dataclass(frozen=True, kw_only=True)
class JudgedSet:
    """Judged queries over a corpus that stays on disk. `relevance` is as a `JudgedSample` holds it.

    `document_ids` are in the file's order, without the documents that have neither a title nor a text: nothing finds
    those, but they may be judged.
    """

    name: str
    queries: Mapping[str, str]
    relevance: Mapping[str, Mapping[str, int]]
    document_ids: tuple[str, ...]
    corpus: Traversable

    def documents(self) -> Iterator[tuple[str, str]]:
        """Read the corpus again: id and text of each document of `document_ids`, in order."""
        return ((document_id, text) for _, document_id, text in _records(self.corpus) if text.strip())


def packaged_set(*, qrels: Traversable | None = None, max_text_bytes: int) -> JudgedSet:
    """The set that comes with Headrace: 30 queries over its 100 sample records, graded 2 (answers) or 1 (helps)."""
    folder = files("console") / "judged"
    return read_set(folder, name="packaged sample", qrels=qrels, max_text_bytes=max_text_bytes)


def packaged_sample() -> JudgedSample:
    """The same, all in memory."""
    return read_sample(files("console") / "judged")


def read_sample(folder: Traversable) -> JudgedSample:
    """Read a set into memory; raises as `read_set` does."""
    judged = read_set(folder, name=folder.name, max_text_bytes=ProducerSettings.max_text_bytes)
    return JudgedSample(queries=judged.queries, documents=dict(judged.documents()), relevance=judged.relevance)


def read_set(folder: Traversable, *, name: str, qrels: Traversable | None = None, max_text_bytes: int) -> JudgedSet:
    """Read the queries that have a relevant document, what is judged of them, and the ids of the corpus.

    Raises:
        ConfigurationError: a file is missing, a line is not what it should be, or nothing is judged.
        InvalidText: a text is none that a model can be given.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} holds no judged sample: it is not a folder")
    corpus, asked = folder / "corpus.jsonl", folder / "queries.jsonl"
    qrels = qrels or _find_qrels(folder)
    texts: dict[str, str] = {}
    places: dict[str, str] = {}
    for place, query_id, text in _records(asked):
        _check_new(query_id, texts, place)
        texts[query_id], places[query_id] = text, place
    document_ids: dict[str, bool] = {}
    for place, document_id, text in _records(corpus):
        _check_new(document_id, document_ids, place)
        document_ids[document_id] = bool(text.strip())
        if text.strip():
            clean_text(text, max_text_bytes, f"{place}: the document")
    if not any(document_ids.values()):
        raise ConfigurationError(f"{corpus} holds no document with a text")
    relevance = _relevance(qrels, texts, document_ids)
    for query_id in relevance:
        clean_text(texts[query_id], max_text_bytes, f"{places[query_id]}: the query")
    return JudgedSet(
        name=name,
        queries={query_id: text for query_id, text in texts.items() if query_id in relevance},
        relevance=relevance,
        document_ids=tuple(document_id for document_id, has_text in document_ids.items() if has_text),
        corpus=corpus,
    )


def _find_qrels(folder: Traversable) -> Traversable:
    for parts in _QRELS:
        if (file := folder.joinpath(*parts)).is_file():
            return file
    names = ", ".join("/".join(parts) for parts in _QRELS)
    raise ConfigurationError(f"{folder} holds no judged sample: none of {names} is there (see --qrels)")


def _relevance(
    qrels: Traversable, queries: Mapping[str, str], documents: Mapping[str, bool]
) -> dict[str, dict[str, int]]:
    """The grades above 0."""
    relevance: dict[str, dict[str, int]] = {}
    seen: set[tuple[str, str]] = set()
    for row in read_judgements(qrels):
        if row.query_id not in queries:
            raise ConfigurationError(f"{row.place} judges query {row.query_id}, which queries.jsonl does not hold")
        if row.document_id not in documents:
            raise ConfigurationError(f"{row.place} judges document {row.document_id}, which corpus.jsonl does not hold")
        pair = (row.query_id, row.document_id)
        if pair in seen:
            raise ConfigurationError(f"{row.place} judges document {pair[1]} a second time for query {pair[0]}")
        seen.add(pair)
        if row.grade > 0:
            relevance.setdefault(row.query_id, {})[row.document_id] = row.grade
    if not relevance:
        raise ConfigurationError(f"{qrels} judges no document relevant (a grade above 0)")
    return relevance


def _records(file: Traversable) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the id and the text (of a document: title and text) of each line."""
    for place, line in lines_of(file):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise ConfigurationError(f"{place} is not JSON") from None
        if not isinstance(record, dict) or not isinstance(record.get("_id"), str | int):
            raise ConfigurationError(f"{place} is not a JSON object with an '_id'")
        title, text = record.get("title") or "", record.get("text")
        if not isinstance(title, str) or not isinstance(text, str):
            raise ConfigurationError(f"{place} has no 'text' that is a string, or a 'title' that is none")
        identity = str(record["_id"])
        if len(identity.split()) != 1:
            raise ConfigurationError(f"{place} has an '_id' that is not one word")
        yield place, identity, f"{title} {text}".strip()


def _check_new(identity: str, known: Mapping[str, object], place: str) -> None:
    if identity in known:
        raise ConfigurationError(f"{place} has the _id {identity}, as a line before it has")
