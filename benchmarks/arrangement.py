"""How the benchmarks' pools share the machine: processes and threads, as measured best on two cores."""

import os
from collections.abc import Mapping

EMBED_POOL: Mapping[str, str] = {
    "HEADRACE_PROCESSES": os.environ.get("BP", "2"),
    "HEADRACE_THREADS": os.environ.get("BT", "1"),
}

RERANK_POOL: Mapping[str, str] = EMBED_POOL


def told(pool: Mapping[str, str]) -> str:
    """Name an arrangement for the table, such as "1 process x 2 threads"."""
    processes, threads = pool["HEADRACE_PROCESSES"], pool["HEADRACE_THREADS"]
    return f"{processes} process{'es' * (processes != '1')} x {threads} thread{'s' * (threads != '1')}"
