"""Re-embedding with a model that does nothing: rows/s into each kind of sink, beside less work; memory as rows pass.

`--scale 5` takes 100,000 rows.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.finding import Finding
from benchmarks.noop_pool import MODEL
from benchmarks.reembed_side import WARM, Side
from benchmarks.site import Site, site

ROWS = 20_000
POINTS = 5_000
"""Fewer, since the embedded store takes about a millisecond for each."""

_LEAST_ROWS = 40


def run(scale: float = 1.0) -> list[Finding]:
    """Measure all ways, each in a process of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder,
        site(HEADRACE_EMBED_MODEL=MODEL) as place,
        place.pool("embed", module="benchmarks.noop_pool", HEADRACE_PROCESSES="1", HEADRACE_THREADS="1"),
    ):
        rows = _source(Path(folder) / "rows.jsonl", max(_LEAST_ROWS, int(ROWS * scale)))
        points = _source(Path(folder) / "points.jsonl", max(_LEAST_ROWS, int(POINTS * scale)))
        ways = _Ways(place=place, folder=Path(folder))
        bare = [ways.fresh("bare", rows, "")]
        lines = ways.fresh("run", rows, f"{folder}/vectors.jsonl")
        cached = ways.go("run", rows, f"{folder}/again.jsonl")
        parquet = ways.fresh("run", rows, f"{folder}/vectors.parquet")
        bare.append(ways.fresh("bare", rows, ""))
        filled = ways.fresh("fill", points, f"qdrant+local:{folder}/filled#points")
        qdrant = ways.fresh("run", points, f"qdrant+local:{folder}/embedded#points")
    usual = mean(side.rows_per_s for side in bare)  # before and after, since a machine changes its pace
    return [
        _speed("JSONL to JSONL", lines, usual, "iter_embed over the texts, nothing written", bound=0.2),
        _speed("JSONL to Parquet", parquet, usual, "iter_embed over the texts, nothing written", bound=0.4),
        _speed("JSONL to JSONL, all cached", cached, lines.rows_per_s, "the same run with nothing cached", bound=0.9),
        _speed(
            "JSONL to an embedded Qdrant", qdrant, filled.rows_per_s, "qdrant-client writes the same points", bound=0.7
        ),
        _memory("JSONL to JSONL", lines),
        _store_memory(qdrant, filled),
    ]


@dataclass(frozen=True, kw_only=True)
class _Ways:
    """Starts the processes that go the ways."""

    place: Site
    folder: Path

    def fresh(self, way: str, source: Path, target: str) -> Side:
        """Go a way with nothing cached."""
        with self.place.client() as client:
            for key in client.scan_iter("emb:*", count=1000):
                client.unlink(key)
        return self.go(way, source, target)

    def go(self, way: str, source: Path, target: str) -> Side:
        """Go a way."""
        command = [sys.executable, "-m", "benchmarks.reembed_side", way, str(source), target, self.place.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{way} into {target} failed: {done.stderr.strip()}")
        return Side(**json.loads(done.stdout))


def _source(path: Path, count: int) -> Path:
    """Records of a contact's length."""
    with path.open("w") as stream:
        for number in range(count):
            text = f"Contact {number}, who works on subject {number % 97} and answers letters on day {number % 31}"
            stream.write(json.dumps({"id": number, "text": text, "user": number % 7}) + "\n")
    return path


def _speed(what: str, ours: Side, theirs: float, against: str, *, bound: float) -> Finding:
    return Finding(
        target="reembed",
        what=f"{what}, {ours.rows:,} rows",
        against=against,
        measured=ours.rows_per_s / theirs,
        bound=bound,
        ours=f"{ours.rows_per_s:,.0f} rows/s",
        theirs=f"{theirs:,.0f} rows/s",
        note="with a model that does nothing, all that a row costs is its reading, its way and its writing",
    )


def _memory(what: str, side: Side) -> Finding:
    return Finding(
        target="reembed",
        what=f"{what}: memory after {side.rows:,} rows",
        against=f"after {side.rows * WARM:,.0f} rows",
        measured=side.end_mib / side.warm_mib,
        bound=1.1,
        at_least=False,
        ours=f"{side.end_mib:.0f} MiB",
        theirs=f"{side.warm_mib:.0f} MiB",
        note="a window and a write are all that may be held",
    )


def _store_memory(ours: Side, theirs: Side) -> Finding:
    return Finding(
        target="reembed",
        what=f"JSONL to an embedded Qdrant: memory after {ours.rows:,} rows",
        against="qdrant-client alone, which holds every point",
        measured=ours.end_mib / theirs.end_mib,
        bound=1.3,
        at_least=False,
        ours=_path(ours),
        theirs=_path(theirs),
        note="the embedded store holds its collections in memory, by its design",
    )


def _path(side: Side) -> str:
    return f"{side.warm_mib:.0f} to {side.end_mib:.0f} MiB"
