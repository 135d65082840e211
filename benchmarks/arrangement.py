"""How the benchmarks' pools share the machine. HEADRACE_PROCESSES and HEADRACE_THREADS choose something else."""

import os
from collections.abc import Mapping

from workers.settings import cpu_limit


def embed_pool() -> dict[str, str]:
    """A process of one thread for each core: more rows/s than threads that wait for each other."""
    return _chosen(processes=cpu_limit(), threads=1)


def rerank_pool() -> dict[str, str]:
    """One process with all cores: a call's documents are one job, and one process works on it."""
    return _chosen(processes=1, threads=cpu_limit())


def told(pool: Mapping[str, str]) -> str:
    """Name an arrangement for the table, such as "1 process x 2 threads"."""
    processes, threads = pool["HEADRACE_PROCESSES"], pool["HEADRACE_THREADS"]
    return f"{processes} process{'es' * (processes != '1')} x {threads} thread{'s' * (threads != '1')}"


def _chosen(*, processes: int, threads: int) -> dict[str, str]:
    default = {"HEADRACE_PROCESSES": str(processes), "HEADRACE_THREADS": str(threads)}
    return {name: os.environ.get(name) or value for name, value in default.items()}
