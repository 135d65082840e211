"""A judged sample: queries, documents, how relevant which is to which; and what a ranking is worth by it (nDCG@10)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from producer.errors import ConfigurationError

_INSTALL = "pip install 'headrace[eval]'"

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class JudgedSample:
    """Texts by their ids. `relevance` holds a grade above 0 for each relevant document of a query; others count 0."""

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    relevance: Mapping[str, Mapping[str, int]]

    def __post_init__(self) -> None:
        for query_id, grades in self.relevance.items():
            unknown = grades.keys() - self.documents.keys()
            if query_id not in self.queries or unknown:
                raise ConfigurationError(f"the judgements of query {query_id} name what the sample does not hold")

    def candidates(self, query_id: str, count: int) -> list[str]:
        """Ids of the relevant documents and, up to `count`, of those that share the most words with the query."""
        relevant = self.relevance.get(query_id, {})
        words = _words(self.queries[query_id])
        others = [document_id for document_id in self.documents if document_id not in relevant]
        others.sort(key=lambda document_id: -len(words & _words(self.documents[document_id])))
        return [*relevant, *others][: max(count, len(relevant))]


def ndcg_at_10(sample: JudgedSample, scores: Mapping[str, Mapping[str, float]]) -> float:
    """Mean nDCG@10 over the sample's queries, of scores by query id and document id; higher is better.

    Raises:
        ConfigurationError: the library that computes it is not installed.
    """
    ir_measures = measuring_library()
    measure = ir_measures.nDCG @ 10
    relevance = {query_id: dict(grades) for query_id, grades in sample.relevance.items()}
    found = ir_measures.calc_aggregate([measure], relevance, {key: dict(value) for key, value in scores.items()})
    return float(found[measure])


def measuring_library() -> Any:
    """The library that computes measures of rankings, loaded here since only who judges rankings installs it.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import ir_measures  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(f"rankings are measured by ir-measures, which is not installed: {_INSTALL}") from error
    return ir_measures


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
