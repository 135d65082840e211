"""What an application pays for the library: the time to import it and make a first call, and the memory it takes."""

import json
import subprocess
import sys
from dataclasses import dataclass
from statistics import median

from benchmarks import noop_pool
from benchmarks.finding import Finding
from benchmarks.site import site

_ROUNDS = 9
_HEAVY = ("fastembed", "onnxruntime", "tokenizers", "onnx")

_MEASURE = """
import time; started = time.perf_counter()
{body}
import json, sys
spent_ms = (time.perf_counter() - started) * 1000
with open("/proc/self/status") as status:
    rss_kb = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
print(json.dumps([spent_ms, rss_kb / 1024, [name for name in {heavy!r} if name in sys.modules]]))
"""

_OURS = """
from producer import Producer
producer = Producer.from_url({url!r}, embed_model={model!r})
producer.embed("where can I swim?")
"""

_THEIRS = """
import redis, numpy
client = redis.Redis.from_url({url!r})
client.get("where can I swim?")
"""


@dataclass(frozen=True, kw_only=True)
class Start:
    """One fresh interpreter: how long it took, what it holds, and which model libraries it loaded."""

    spent_ms: float
    rss_mb: float
    heavy: list[str]


def run() -> list[Finding]:
    """Start interpreters in turns: the library with a first cached call, and redis and numpy with a first GET."""
    with site(HEADRACE_EMBED_MODEL=noop_pool.MODEL) as place:
        with place.pool("embed", module="benchmarks.noop_pool"), place.producer() as producer:
            producer.embed("where can I swim?")  # cached from here on
        ours, theirs = (body.format(url=place.url, model=noop_pool.MODEL) for body in (_OURS, _THEIRS))
        starts = [(_start(ours), _start(theirs)) for _ in range(_ROUNDS)]
    return _findings(starts)


def _findings(starts: list[tuple[Start, Start]]) -> list[Finding]:
    more_ms = median(mine.spent_ms - other.spent_ms for mine, other in starts)
    more_mb = median(mine.rss_mb - other.rss_mb for mine, other in starts)
    heavy = sorted({name for mine, _ in starts for name in mine.heavy})
    return [
        Finding(
            target="11",
            what="import of producer and a first cached call, more than",
            against="import redis, numpy and a first GET",
            measured=more_ms,
            bound=150.0,
            at_least=False,
            unit="ms",
            ours=f"{median(mine.spent_ms for mine, _ in starts):.0f} ms",
            note="the library's own modules and msgpack, and redis-py's parts that a plain client does not import",
            theirs=f"{median(other.spent_ms for _, other in starts):.0f} ms",
        ),
        Finding(
            target="11",
            what="memory of an application with the library, more than",
            against="one with redis and numpy",
            measured=more_mb,
            bound=None,
            at_least=False,
            unit="MB",
            ours=f"{median(mine.rss_mb for mine, _ in starts):.0f} MB",
            theirs=f"{median(other.rss_mb for _, other in starts):.0f} MB",
        ),
        Finding(
            target="11",
            what="model libraries that it loads",
            against=", ".join(_HEAVY),
            measured=float(len(heavy)),
            bound=0.0,
            at_least=False,
            unit="",
            ours=", ".join(heavy) or "none",
            note="something that an application imports imports them",
        ),
    ]


def _start(body: str) -> Start:
    script = _MEASURE.format(body=body, heavy=_HEAVY)
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    spent_ms, rss_mb, heavy = json.loads(done.stdout)
    return Start(spent_ms=spent_ms, rss_mb=rss_mb, heavy=heavy)
