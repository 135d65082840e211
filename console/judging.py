"""Reads judged samples in the layout of BEIR (Thakur et al. 2021): corpus.jsonl, queries.jsonl, qrels/test.tsv."""

import csv
import json
from importlib.abc import Traversable
from importlib.resources import files

from producer.errors import ConfigurationError
from workers.judged import JudgedSample


def packaged_sample() -> JudgedSample:
    """The sample that comes with Headrace: 30 queries over its 100 sample records, graded 2 (answers) or 1 (helps)."""
    return read_sample(files("console") / "judged")


def read_sample(folder: Traversable) -> JudgedSample:
    """Read a sample from a folder.

    Raises:
        ConfigurationError: a file is missing, or is not what BEIR's layout wants.
    """
    try:
        relevance: dict[str, dict[str, int]] = {}
        lines = (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()
        for row in csv.DictReader(lines, delimiter="\t"):
            if int(row["score"]) > 0:
                relevance.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
        queries, documents = _texts(folder / "queries.jsonl"), _texts(folder / "corpus.jsonl")
        judged = {query_id: text for query_id, text in queries.items() if query_id in relevance}
        return JudgedSample(queries=judged, documents=documents, relevance=relevance)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{folder} holds no judged sample ({type(error).__name__}: {error})") from error


def _texts(file: Traversable) -> dict[str, str]:
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {record["_id"]: f"{record.get('title', '')} {record['text']}".strip() for record in records}
