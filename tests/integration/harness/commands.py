"""The command line as people and scripts run it: `python cli.py …`, or in this process where it does not matter."""

import re
import subprocess
import sys
from collections.abc import Sequence

from click.testing import CliRunner, Result

from cli import main
from tests.integration.harness.processes import ROOT, Program
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

_LONGEST_S = 120.0


def run(
    site: Site, *arguments: str | bytes, stdin: str = "", options: Sequence[str] = (), **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process; `options` go before the command."""
    command = [sys.executable, "cli.py", *options, *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=site.environ(**environ),
        input=stdin,
        text=True,
        capture_output=True,
        timeout=_LONGEST_S,
        check=False,
    )


def call(site: Site, *arguments: str, stdin: str = "", **environ: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, arguments, input=stdin, env=site.environ(**environ))


def check_success(done: Result) -> str:
    """Check that a command ended well, and return what it printed."""
    assert done.exit_code == 0, done.output
    return done.stdout


def check_one_line(done: Result | subprocess.CompletedProcess[str], *reasons: str) -> None:
    """Check that a command failed with one line on standard error that says all of this, and without a traceback."""
    code = done.exit_code if isinstance(done, Result) else done.returncode
    assert code != 0
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    for reason in reasons:
        assert reason in lines[0]
    assert "Traceback" not in done.stderr
    if isinstance(done, Result):
        assert isinstance(done.exception, SystemExit), f"as a process this would show a traceback: {done.exception!r}"


def await_up(up: Program) -> dict[str, str]:
    """Wait until `headrace up --offline` says that it is ready; return the variables it says to export."""

    def ready() -> list[tuple[str, str]]:
        assert up.running, up.stderr
        return re.findall(r"(\w+)=(\S+)", up.stdout) if "Ctrl-C stops everything" in up.stdout else []

    exports = dict(wait_until(ready, 120, what="`up` to be ready", poll_s=0.1))
    assert exports.keys() == {"REDIS_URL", "HEADRACE_EMBED_MODEL", "HEADRACE_RERANK_MODEL"}
    assert exports["REDIS_URL"] in up.stdout.splitlines()[0]
    return exports
