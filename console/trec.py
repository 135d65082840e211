"""Reads and writes TREC's files: runs (what a system ranked), and judgements (qrels), BEIR's kind of them, too."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.abc import Traversable

from producer.errors import ConfigurationError

Rankings = Mapping[str, Mapping[str, float]]
"""Scores by document id, best first, by query id."""

_LEAST_STEP = 1e-6
"""Relative to the score: trec_eval holds scores as float32, which tells steps of 1.2e-7 apart."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one system ranked; its name is one word."""

    name: str
    rankings: Rankings


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One row of judgements, and where it stands."""

    place: str
    query_id: str
    document_id: str
    grade: int


def lines_of(file: Traversable) -> Iterator[tuple[str, str]]:
    """Yield the lines that are not blank, each with its place as errors name it.

    Raises:
        ConfigurationError: the file cannot be read, or is not UTF-8.
    """
    try:
        with file.open("r", encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield f"{file} line {number}", line.rstrip("\n")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8 text") from error


def read_judgements(file: Traversable) -> Iterator[Judgement]:
    """Read `query 0 document grade` (TREC) or `query document grade` (BEIR, with or without its head).

    Raises:
        ConfigurationError: the file cannot be read, or a line is neither; with its number.
    """
    for position, (place, line) in enumerate(lines_of(file)):
        row = line.split()
        if position == 0 and row[-1] == "score":
            continue
        try:
            query_id, *_, document_id, grade = row
            if len(row) not in (3, 4):
                raise ValueError
            yield Judgement(place=place, query_id=query_id, document_id=document_id, grade=int(grade))
        except ValueError:
            raise ConfigurationError(
                f"{place} is no judgement: it must be 'query 0 document grade' or 'query document grade'"
            ) from None


def read_run(file: Traversable) -> Run:
    """Read `query Q0 document rank score name` lines; equal scores are ordered by the rank.

    Raises:
        ConfigurationError: the file cannot be read, holds nothing, or a line is none of a run; with its number.
    """
    found: dict[str, dict[str, tuple[float, int]]] = {}
    name = ""
    for place, line in lines_of(file):
        try:
            query_id, _, document_id, rank, score, name = line.split()
            value = (-float(score), int(rank))
        except ValueError:
            raise ConfigurationError(f"{place} is not of a TREC run: 'query Q0 document rank score name'") from None
        if math.isnan(value[0]):
            raise ConfigurationError(f"{place} has a score that is not a number")
        if found.setdefault(query_id, {}).setdefault(document_id, value) is not value:
            raise ConfigurationError(f"{place} ranks document {document_id} a second time for query {query_id}")
    if not found:
        raise ConfigurationError(f"{file} holds no run")
    return Run(
        name=name,
        rankings={
            query_id: {document_id: -row[document_id][0] for document_id in sorted(row, key=row.__getitem__)}
            for query_id, row in found.items()
        },
    )


def run_lines(run: Run) -> Iterator[str]:
    """Write a run's lines, without their ends. Scores fall strictly, so that every tool orders equal ones alike."""
    for query_id, ranking in run.rankings.items():
        least = math.inf
        for rank, (document_id, score) in enumerate(ranking.items(), 1):
            least = min(score, least)
            yield f"{query_id} Q0 {document_id} {rank} {least:.9g} {run.name}"
            least -= max(1.0, abs(least)) * _LEAST_STEP
