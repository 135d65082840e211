"""Fixtures of the unit tests: a clock and a server of dicts for flows, a Redis in memory and a worker's shift on it."""

import pytest
import redis

from tests.unit.engine import Shift
from tests.unit.fakes import FakeServer, ManualClock, redis_in_memory


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> FakeServer:
    return FakeServer(clock)


@pytest.fixture
def client() -> redis.Redis:
    return redis_in_memory()


@pytest.fixture
def shift(client: redis.Redis) -> Shift:
    return Shift(client)
