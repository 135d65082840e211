"""What `headrace optimize` found out about a model it made: headrace.json, beside the model; the card quotes it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from producer.errors import ConfigurationError
from producer.wire.models import TaskName, split_revision

FILE = "headrace.json"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """How a model was made of which, and how it compares with it, on the machine where it was made.

    `agreement` is the mean cosine between both models' vectors of the judged texts, or for rerankers the correlation
    of their scores. `speedup` is the ratio of rows/s, each model in the arrangement that its pool would use: batched if
    `batch_invariant`, else one row at a time.
    """

    source: str
    source_sha256: str
    task: TaskName
    method: str
    agreement: float
    ndcg_at_10_before: float
    ndcg_at_10_after: float
    batch_invariant: bool
    speedup: float
    onnxruntime: str

    @property
    def ndcg_change(self) -> float:
        """Negative if the model ranks worse than the original."""
        return self.ndcg_at_10_after - self.ndcg_at_10_before


def write_findings(directory: Path, findings: Findings) -> None:
    """Put the findings into a model's directory."""
    (directory / FILE).write_text(json.dumps(asdict(findings), indent=2) + "\n", encoding="utf-8")


def method_of(model: str) -> str:
    """How the model of that name was made and what its checks gave, from its directory's findings; "" if it has none.

    Raises:
        ConfigurationError: there are findings, and they cannot be read.
    """
    file = Path(split_revision(model)[0]).expanduser() / FILE
    if not file.is_file():
        return ""
    try:
        found = Findings(**json.loads(file.read_text(encoding="utf-8")))
        return f"{found.method}: agreement {found.agreement:.4f}, nDCG@10 {found.ndcg_change:+.4f}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{file} cannot be read ({type(error).__name__}): make the model again") from error
