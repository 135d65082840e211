"""Fixtures of the chaos campaigns: `sizes`, `seed` and `report`; `--long` turns the short form into the long one."""

from collections.abc import Iterator

import pytest

from producer import Producer
from tests.chaos.campaign import Report, Sizes
from tests.chaos.rubbish import DEADLINE_S, Check
from tests.integration.harness.engine import Engine
from tests.integration.harness.site import Site

_REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    def print_line(line: str) -> None:
        capture = config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", flush=True)

    config.stash[_REPORT] = Report(print_line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--long") and (report := config.stash[_REPORT]).lines:
        terminalreporter.section("chaos campaigns")
        for line in report.table():
            terminalreporter.line(line)


@pytest.fixture
def sizes(pytestconfig: pytest.Config) -> Sizes:
    """Chooses between the sizes of the short and the long form."""
    return Sizes(is_long=bool(pytestconfig.getoption("--long")))


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    """Where all chance of a campaign comes from; it belongs into its report, and is shown when a test fails."""
    seed = int(pytestconfig.getoption("--seed"))
    print(f"seed {seed}: repeat with --seed={seed}")
    return seed


@pytest.fixture
def rows(pytestconfig: pytest.Config) -> int:
    """How many rows the soak sends in its long form."""
    return int(pytestconfig.getoption("--rows"))


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Report:
    """Prints a campaign's figures, and all of them again as a table at the end of a long run."""
    return pytestconfig.stash[_REPORT]


@pytest.fixture
def check(solo: Site, caplog: pytest.LogCaptureFixture) -> Check:
    return Check(solo, caplog)


@pytest.fixture
def engine(solo: Site) -> Iterator[Engine]:
    with Engine(solo, lease_s=1.0) as engine:
        yield engine


@pytest.fixture
def producer(solo: Site) -> Iterator[Producer]:
    with solo.producer(timeout_s=DEADLINE_S) as producer:
        yield producer
