"""Messages and entries that hypothesis makes up, and how it is set: no database, no deadline, the same every time."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import msgpack
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

_HOME = tempfile.mkdtemp(prefix="headrace-hypothesis-")
"""What hypothesis stores although it has no database; by default it would be a folder in the tree."""
set_hypothesis_home_dir(_HOME)
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

Fields = tuple[tuple[bytes, bytes], ...]
"""Fields of a stream entry; pairs, since a hostile peer may repeat a name."""

STEADY = settings(database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary()
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner),
    max_leaves=10,
)
"""Whatever msgpack can hold, without extension types."""

_NAMES = st.sampled_from(
    ("v", "kind", "budget_ms", "query", "vector", "score", "error", "message", "failed_at_ms", "task", "model", "pid")
)
_LIKELY = st.sampled_from((1, 1, 0, 2, 60_000, 0.5, "query", "passage", "pair", "", "x", b"\0\0\0\0", b"", True, None))

MAPS: st.SearchStrategy[Mapping[str, Any]] = st.dictionaries(_NAMES, _LIKELY | VALUES, max_size=6)
"""Maps that look like messages, sometimes enough to be one."""


@st.composite
def _packed(draw: st.DrawFn) -> bytes:
    body = draw(MAPS | VALUES)
    if isinstance(body, dict) and draw(st.booleans()):
        body = {"v": 1, **body}
    data: bytes = msgpack.packb(body)
    return data


DATA: st.SearchStrategy[bytes] = st.binary(max_size=200) | _packed()
"""Bytes where a message should be."""

_FIELD_NAMES = st.sampled_from((b"job", b"job", b"0", b"0", b"1", b"2")) | st.binary(max_size=8)
ENTRIES: st.SearchStrategy[Fields] = st.lists(
    st.tuples(_FIELD_NAMES, DATA | st.text().map(lambda text: text.encode(errors="replace"))), min_size=1, max_size=6
).map(tuple)
"""Stream entries that are hardly ever a job."""


def made_up(strategy: st.SearchStrategy[Fields], count: int, from_seed: int) -> list[Fields]:
    """So many examples of a strategy, the same for the same seed."""
    found: list[Fields] = []

    @seed(from_seed)
    @settings(STEADY, derandomize=False, max_examples=count, phases=[Phase.generate])
    @given(strategy)
    def collect(example: Fields) -> None:
        found.append(example)

    collect()
    return found
