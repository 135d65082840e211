"""Settings of a worker pool, and the limits of the machine or container it runs in."""

import os
from dataclasses import dataclass
from pathlib import Path

from producer.errors import ConfigurationError
from producer.settings import SharedSettings, setting
from producer.wire.models import TaskName


@dataclass(frozen=True, kw_only=True)
class WorkerSettings(SharedSettings):
    """What a pool is told besides: how much CPU it may use, and how long things may take."""

    processes: int = setting(1, "HEADRACE_PROCESSES", "Worker processes, each with its own model.", minimum=1)
    threads: int = setting(
        0, "HEADRACE_THREADS", "Model threads of a process; 0 shares the CPUs out evenly.", minimum=0
    )
    pin: bool = setting(True, "HEADRACE_PIN", "Pin each process to cores of its own when there are enough.")
    batch_tokens: int = setting(
        0,
        "HEADRACE_BATCH_TOKENS",
        "Padded tokens of a batch, at most; 0: what a calibration at the first start finds best.",
        minimum=0,
    )
    bulk_share: float = setting(
        0.05, "HEADRACE_BULK_SHARE", "Share of the model that bulk rows keep while interactive ones wait.", minimum=0
    )
    reply_ttl_s: int = setting(86400, "HEADRACE_REPLY_TTL_S", "How long results stay cached, in seconds.", minimum=1)
    lease_s: float = setting(
        8.0, "HEADRACE_LEASE_S", "After this long without a sign of its worker, a job is taken over.", minimum=0.1
    )
    batch_limit_s: float = setting(
        120.0, "HEADRACE_BATCH_LIMIT_S", "A process whose batch runs longer is killed and replaced.", minimum=0.1
    )
    recycle_rows: int = setting(
        0, "HEADRACE_RECYCLE_ROWS", "After about so many rows a process is replaced in order; 0: never.", minimum=0
    )
    recycle_mb: int = setting(
        0, "HEADRACE_RECYCLE_MB", "Beyond so many MiB of memory a process is replaced in order; 0: never.", minimum=0
    )
    grace_s: float = setting(30.0, "HEADRACE_GRACE_S", "How long a pool may take to stop, in seconds.", minimum=0)
    prepare_mb: int = setting(
        500,
        "HEADRACE_PREPARE_MB",
        "Weights of so many MiB or more are rewritten once into the cache folder, for processes to share; 0: never.",
        minimum=0,
    )
    cache_dir: str = setting("", "HEADRACE_CACHE_DIR", "Folder for models; without it ~/.cache/headrace.")
    log_level: str = setting("info", "HEADRACE_LOG_LEVEL", "How much is logged: debug, info, warning or error.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.log_level.lower() not in ("debug", "info", "warning", "error"):
            raise ConfigurationError("HEADRACE_LOG_LEVEL must be debug, info, warning or error")
        if self.bulk_share >= 1:
            raise ConfigurationError("HEADRACE_BULK_SHARE must be less than 1")

    def model(self, task: TaskName) -> str:
        """The model of that task's pool."""
        return self.embed_model if task == "embed" else self.rerank_model

    @property
    def cache_path(self) -> Path:
        """The cache folder, by default the user's (`XDG_CACHE_HOME` of the XDG Base Directory specification)."""
        if self.cache_dir:
            return Path(self.cache_dir).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "headrace"

    @property
    def prepare_bytes(self) -> float:
        """Weights of so many bytes or more are prepared for sharing."""
        return self.prepare_mb * 2**20 if self.prepare_mb else float("inf")

    def threads_per_process(self) -> int:
        """The threads of each process: as asked, but never more in all than CPUs, nor less than one."""
        share = max(1, cpu_limit() // self.processes)
        return min(self.threads, share) if self.threads else share


def cpu_limit(cgroup: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Count the CPUs this process may use: its affinity, or less by its cgroups' quotas (v2 or v1), at least 1."""
    quotas = [quota for folder in _own_folders(cgroup, membership) if (quota := _cgroup_quota(folder)) is not None]
    available = len(os.sched_getaffinity(0))
    return max(1, min([available, *(int(quota) for quota in quotas)]))


def _own_folders(cgroup: Path, membership: Path) -> list[Path]:
    """The root of the hierarchy, where a container sees its own limits, and this process's groups below it (v2)."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = cgroup / own
    return [cgroup, *(path for path in (folder, *folder.parents) if path.is_relative_to(cgroup) and path != cgroup)]


def _cgroup_quota(cgroup: Path) -> float | None:
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return None if quota.strip() in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def cores_for_slot(task: TaskName, slot: int, processes: int, threads: int, cores: list[int]) -> list[int] | None:
    """Choose the cores of one process, or None when there are too few to give each its own.

    Embed pools take cores from the front, rerank pools from the back, so that the two share a machine well.
    """
    if processes * threads > len(cores) or slot >= processes:
        return None
    ordered = cores if task == "embed" else cores[::-1]
    return ordered[slot * threads : (slot + 1) * threads]
