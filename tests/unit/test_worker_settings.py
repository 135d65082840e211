"""Settings of a pool, and how it reads and shares out the CPUs of its machine or container."""

import os
from pathlib import Path
from typing import Any

import pytest

from producer import ConfigurationError
from producer.settings import load
from workers import settings as worker_settings
from workers.settings import WorkerSettings, cores_for_slot, cpu_limit


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def cgroup_v2(folder: Path, content: str) -> Path:
    (folder / "cpu.max").write_text(content)
    return folder


def cgroup_v1(folder: Path, quota: str | None, period: str | None) -> Path:
    (folder / "cpu").mkdir()
    for name, content in (("cpu.cfs_quota_us", quota), ("cpu.cfs_period_us", period)):
        if content is not None:
            (folder / "cpu" / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("content", "cpus"),
    [
        ("max 100000\n", 8),
        ("400000 100000\n", 4),
        ("250000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("9900000 100000\n", 8),
        ("garbage", 8),
        ("a b", 8),
        ("", 8),
        ("100000", 8),
        ("1 2 3", 8),
        ("100000 0\n", 8),
    ],
)
def test_cpus_by_the_quota_of_cgroup_v2(tmp_path: Path, content: str, cpus: int) -> None:
    assert cpu_limit(cgroup_v2(tmp_path, content)) == cpus


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [
        ("-1\n", "100000\n", 8),
        ("600000\n", "100000\n", 6),
        ("150000\n", "100000\n", 1),
        ("20000\n", "100000\n", 1),
        ("garbage", "100000", 8),
        ("600000", None, 8),
        (None, "100000", 8),
    ],
)
def test_cpus_by_the_quota_of_cgroup_v1(tmp_path: Path, quota: str | None, period: str | None, cpus: int) -> None:
    assert cpu_limit(cgroup_v1(tmp_path, quota, period)) == cpus


def test_without_a_cgroup_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_limit(tmp_path) == 8
    assert cpu_limit(tmp_path / "missing") == 8

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert cpu_limit(tmp_path) == 1
    assert cpu_limit(cgroup_v2(tmp_path, "400000 100000")) == 1


@pytest.mark.parametrize(
    ("cpus", "processes", "threads", "given"),
    [
        (8, 1, 0, 8),
        (8, 2, 0, 4),
        (8, 3, 0, 2),
        (8, 2, 3, 3),
        (8, 2, 5, 4),
        (8, 2, 100, 4),
        (8, 16, 0, 1),
        (8, 16, 2, 1),
        (1, 1, 0, 1),
        (1, 1, 4, 1),
    ],
)
def test_threads_are_as_asked_but_never_more_than_the_share(
    monkeypatch: pytest.MonkeyPatch, cpus: int, processes: int, threads: int, given: int
) -> None:
    monkeypatch.setattr(worker_settings, "cpu_limit", lambda: cpus)

    assert WorkerSettings(processes=processes, threads=threads).threads_per_process() == given


def test_embed_pools_take_cores_from_the_front_and_rerank_pools_from_the_back() -> None:
    cores = [0, 1, 2, 3, 8, 9, 10, 11]

    assert [cores_for_slot("embed", slot, 2, 2, cores) for slot in range(2)] == [[0, 1], [2, 3]]
    assert [cores_for_slot("rerank", slot, 2, 2, cores) for slot in range(2)] == [[11, 10], [9, 8]]


def test_no_core_is_shared_inside_a_pool_that_fills_the_machine() -> None:
    given = [core for slot in range(4) for core in cores_for_slot("embed", slot, 4, 2, list(range(8))) or []]

    assert sorted(given) == list(range(8))


@pytest.mark.parametrize(("slot", "processes", "threads"), [(0, 5, 2), (0, 1, 9), (0, 9, 1), (2, 2, 1)])
def test_too_few_cores_are_none(slot: int, processes: int, threads: int) -> None:
    assert cores_for_slot("embed", slot, processes, threads, list(range(8))) is None


def test_a_flag_beats_the_environment_which_beats_the_default() -> None:
    environ = {"HEADRACE_PROCESSES": "3", "HEADRACE_THREADS": "2", "HEADRACE_PIN": "off", "REDIS_URL": "redis://env"}

    settings = load(WorkerSettings, environ, processes=5, threads=None, pin=None)

    assert (settings.processes, settings.threads, settings.pin) == (5, 2, False)
    assert settings.redis_url == "redis://env"
    assert settings.reply_ttl_s == 24 * 3600


def test_a_flag_that_says_no_beats_a_variable_that_says_yes() -> None:
    assert load(WorkerSettings, {"HEADRACE_PIN": "yes"}, pin=False).pin is False
    assert load(WorkerSettings, {"HEADRACE_THREADS": "4"}, threads=0).threads == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("YES", True), ("On", True), ("0", False), ("False", False), ("no", False)],
)
def test_the_words_for_yes_and_no(text: str, value: bool) -> None:
    assert load(WorkerSettings, {"HEADRACE_PIN": text}).pin is value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HEADRACE_PROCESSES", "0"),
        ("HEADRACE_PROCESSES", "-1"),
        ("HEADRACE_PROCESSES", "two"),
        ("HEADRACE_PROCESSES", "1.5"),
        ("HEADRACE_THREADS", "-1"),
        ("HEADRACE_PIN", "maybe"),
        ("HEADRACE_PIN", "2"),
        ("HEADRACE_BATCH_TOKENS", "-1"),
        ("HEADRACE_LEASE_S", "nan"),
        ("HEADRACE_LEASE_S", "inf"),
        ("HEADRACE_LEASE_S", "0"),
        ("HEADRACE_GRACE_S", "-1"),
        ("HEADRACE_GRACE_S", "nan"),
        ("HEADRACE_REPLY_TTL_S", "0"),
        ("HEADRACE_REPLY_TTL_S", "1e3"),
        ("HEADRACE_LOG_LEVEL", "loud"),
        ("HEADRACE_NAMESPACE", "a{b}"),
        ("HEADRACE_NAMESPACE", "a/b"),
        ("HEADRACE_NAMESPACE", "a*"),
    ],
)
def test_variables_that_cannot_work_are_named_in_the_error(variable: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        load(WorkerSettings, {variable: text})


@pytest.mark.parametrize("level", ["debug", "INFO", "Warning"])
def test_log_levels_in_any_case(level: str) -> None:
    assert WorkerSettings(log_level=level).log_level == level


def test_each_task_has_its_model() -> None:
    settings = WorkerSettings(embed_model="e", rerank_model="r")

    assert (settings.model("embed"), settings.model("rerank")) == ("e", "r")


@pytest.mark.parametrize(
    ("fields", "environ", "expected"),
    [
        ({"cache_dir": "/given"}, {"XDG_CACHE_HOME": "/xdg"}, "/given"),
        ({"cache_dir": "~/given"}, {}, "/home/somebody/given"),
        ({}, {"XDG_CACHE_HOME": "/xdg"}, "/xdg/headrace"),
        ({}, {"XDG_CACHE_HOME": ""}, "/home/somebody/.cache/headrace"),
        ({}, {}, "/home/somebody/.cache/headrace"),
    ],
)
def test_the_folder_for_models(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], environ: dict[str, str], expected: str
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert str(WorkerSettings(**fields).cache_path) == expected


def test_the_quota_of_an_own_group_counts_too(tmp_path: Path) -> None:
    group = tmp_path / "cgroup" / "system.slice" / "pool.service"
    group.mkdir(parents=True)
    (tmp_path / "membership").write_text("0::/system.slice/pool.service\n")
    (tmp_path / "cgroup" / "cpu.max").write_text("max 100000\n")
    (group / "cpu.max").write_text("max 100000\n")
    (group.parent / "cpu.max").write_text("300000 100000\n")

    assert cpu_limit(tmp_path / "cgroup", tmp_path / "membership") == 3

    (group / "cpu.max").write_text("150000 100000\n")
    assert cpu_limit(tmp_path / "cgroup", tmp_path / "membership") == 1
