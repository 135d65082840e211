"""Child processes that end with their parent, however the parent ends."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import workers

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Run in a child before its program starts: on Linux, have the kernel send SIGTERM when the parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def start_module(module: str, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start `python -m module` out of reach of the terminal's Ctrl-C, which its parent passes on in order.

    The module is ours, whatever stands in the current folder: -P keeps that off the path, where -m would put it first.
    """
    ours = str(Path(workers.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [ours, environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        env={**environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call; the child runs no Python after it
    )
