"""On what the benchmarks ran: without it their figures say little."""

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from console.redis_server import find_server
from workers.settings import cpu_limit

_PACKAGES = ("headrace", "fastembed", "onnxruntime", "tokenizers", "numpy", "redis", "hiredis", "flask", "gunicorn")


def describe() -> dict[str, str | int]:
    """The machine, the versions of what is measured, the commit, and the time."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _answer("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
        "cores": cpu_limit(),
        "cpu": _cpu_model(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "redis-server": _redis_version(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
    }


def _redis_version() -> str:
    words = _answer(str(find_server(os.environ)), "--version").split()
    return next((word.removeprefix("v=") for word in words if word.startswith("v=")), "")


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return ""


def _answer(*command: str) -> str:
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""
