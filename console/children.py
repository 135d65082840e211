"""Child processes that end with their parent, however the parent ends."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import workers
from producer.orphans import end_with_parent


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
