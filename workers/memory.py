"""What processes take of a machine's or container's memory, and what is left of it, as Linux tells."""

import re
from pathlib import Path


def proportional_bytes(pid: int | None) -> int:
    """The memory of a process, what it shares divided by those who share it (PSS); 0 if that cannot be told."""
    return _number(Path(f"/proc/{pid}/smaps_rollup"), r"^Pss:\s+(\d+) kB$") * 1024


def available_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """What more may be taken: of the machine, or of the container's limit (cgroup v2) if that is less; 0: unknown."""
    left = [_number(meminfo, r"^MemAvailable:\s+(\d+) kB$") * 1024]
    if most := _number(cgroup / "memory.max", r"^(\d+)$"):
        left.append(max(1, most - _number(cgroup / "memory.current", r"^(\d+)$")))
    return min((one for one in left if one), default=0)


def _number(path: Path, pattern: str) -> int:
    try:
        found = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
