"""What `headrace optimize` is asked to make, and what became of each method: plain values, without the heavy tools."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from producer.wire.models import TaskName
from workers.models.findings import Findings

Method = Literal["fused", "dynamic", "static"]
METHODS: tuple[Method, ...] = get_args(Method)

LEAST_AGREEMENT = 0.98
MOST_NDCG_LOSS = 0.01

_DESCRIBED: dict[Method, str] = {"fused": "float32 fused", "dynamic": "int8 dynamic", "static": "int8 static"}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to make: `methods` are tried in order; `seven_bit` weights give the same results on CPUs without VNNI."""

    task: TaskName
    model: str
    out_dir: Path
    methods: Sequence[Method] = METHODS
    seven_bit: bool = False

    def describe(self, method: Method) -> str:
        """The method in the words of the model card."""
        seven_bit = self.seven_bit and method != "fused"
        return f"{_DESCRIBED[method]}{', 7-bit weights' if seven_bit else ''}"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One method's outcome: its findings, None if it made no model; why it was refused, "" if it was not."""

    method: Method
    findings: Findings | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All attempts, and the one that was kept."""

    attempts: tuple[Attempt, ...]
    method: Method
    kept: Findings
