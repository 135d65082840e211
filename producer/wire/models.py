"""What identifies a model's output: its name, revision, prefixes, truncation; and the tag made of them.

Producers and workers compute the same tag from the same name, without loading anything.
"""

import json
import re
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import PurePath
from typing import Literal

from producer.errors import ConfigurationError, UnknownModel

TaskName = Literal["embed", "rerank"]
TASKS: tuple[TaskName, ...] = ("embed", "rerank")

OFFLINE = "offline"
DEFAULT_EMBED_MODEL = "intfloat/multilingual-e5-large"
DEFAULT_RERANK_MODEL = "BAAI/bge-reranker-base"

OFFLINE_EMBED_TOKENS = 256
"""Truncation of the offline embedder: `max_seq_length` of sentence-transformers/all-MiniLM-L6-v2."""
OFFLINE_RERANK_TOKENS = 512
"""Truncation of the offline reranker: the positions that BERT's table holds."""

# What the authors' model cards ask to be put in front of a text (query, passage); fastembed adds none of it.
# bge-*-en-v1.5 is left out on purpose: its card says that the instruction is no longer needed.
_INSTRUCTION = ("Represent this sentence for searching relevant passages: ", "")
_PREFIXES: tuple[tuple[str, tuple[str, str]], ...] = (
    (r"(^|/)(multilingual-)?e5-", ("query: ", "passage: ")),
    (r"nomic-embed-text", ("search_query: ", "search_document: ")),
    (r"snowflake-arctic-embed", _INSTRUCTION),
    (r"mxbai-embed", _INSTRUCTION),
)

_NAME = re.compile(r"[^\x00-\x1f\x7f@]{1,512}")
_REVISION = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that changes a model's output, as far as both sides know it before loading.

    `max_tokens` and `pooling` are `None` where the model's own files decide; `revision` is the label behind
    "@" in a model's name, for running new weights of the same name beside the old.
    """

    task: TaskName
    name: str
    revision: str = ""
    query_prefix: str = ""
    passage_prefix: str = ""
    pooling: str | None = None
    max_tokens: int | None = None
    output: str = "float32"

    @property
    def tag(self) -> str:
        """A short readable slug and 8 hex digits over all fields."""
        last = PurePath(self.name).name.lower()
        slug = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:32] or "model"
        identity = json.dumps(asdict(self), sort_keys=True).encode()
        return f"{slug}-{sha256(identity).hexdigest()[:8]}"


def resolve(task: TaskName, model: str) -> ModelSpec:
    """Turn a model's name as a user writes it into its spec.

    A name is fastembed's, `offline`, or a directory, which is known by its last component: a producer on
    another host need not have it at the same place. "@label" behind any of them tells revisions apart.

    Raises:
        UnknownModel: the name is empty or has characters that no model name has.
    """
    name, revision = split_revision(model) if isinstance(model, str) else ("", "")
    if not _NAME.fullmatch(name) or (revision and not _REVISION.fullmatch(revision)):
        raise UnknownModel(f"{model!r} is not a model name: give one of fastembed's names, 'offline', or a directory")
    if name == OFFLINE:
        tokens = OFFLINE_EMBED_TOKENS if task == "embed" else OFFLINE_RERANK_TOKENS
        pooling = "mean" if task == "embed" else None
        return ModelSpec(task=task, name=name, revision=revision, pooling=pooling, max_tokens=tokens)
    if is_directory_name(name):
        name = PurePath(name).name
        if name in ("", ".", ".."):
            raise ConfigurationError(f"{model!r} names no directory of its own: write its path in full")
    query_prefix, passage_prefix = prefixes(name) if task == "embed" else ("", "")
    return ModelSpec(task=task, name=name, revision=revision, query_prefix=query_prefix, passage_prefix=passage_prefix)


def split_revision(model: str) -> tuple[str, str]:
    """Cut "name@label" into its two parts; the label may be empty."""
    name, _, revision = model.partition("@")
    return name, revision


def is_directory_name(name: str) -> bool:
    """Tell a path from a hub's "organisation/model": a path starts with "/", "./", "../" or "~", or ends in "/"."""
    return name.startswith(("/", "./", "../", "~")) or name.endswith("/") or name in (".", "..")


def prefixes(name: str) -> tuple[str, str]:
    """What the model wants in front of a query and of a passage (both may be empty)."""
    for pattern, pair in _PREFIXES:
        if re.search(pattern, name.lower()):
            return pair
    return "", ""
