"""What the processes of a measurement load in tests: a model without weights, and models that fail."""

import os
import time

from producer.errors import ConfigurationError
from tests.integration.harness.fake_model import FakeModel, describe
from workers.process import LoadedModel
from workers.settings import WorkerSettings


def load_quick(settings: WorkerSettings) -> LoadedModel:
    """A model of a millisecond a batch."""
    return describe("embed", FakeModel(lambda _batch: time.sleep(0.001)), settings.embed_model)


def load_nothing(settings: WorkerSettings) -> LoadedModel:
    """There is no such model."""
    raise ConfigurationError(f"no model is named {settings.embed_model!r}")


def load_and_die(settings: WorkerSettings) -> LoadedModel:
    """As if the kernel had no memory left for it."""
    os._exit(9)


def load_what_fails(settings: WorkerSettings) -> LoadedModel:
    """A model that fails at the first batch of several rows."""

    def fail(batch: object) -> None:
        raise RuntimeError("a kernel failed")

    return describe("embed", FakeModel(fail), settings.embed_model)
