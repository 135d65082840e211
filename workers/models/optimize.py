"""Makes a faster model out of another, and keeps it only if it ranks as well: what `headrace optimize` does."""

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from producer.errors import ConfigurationError
from producer.wire.models import prefixes, resolve
from workers.judged import JudgedSample
from workers.models.findings import Findings, write_findings
from workers.models.optimize_plan import Attempt, Order, Outcome

_INSTALL = "pip install 'headrace[optimize]'"
_LIBRARIES = {"onnx": "onnx", "sympy": "sympy", "ir_measures": "ir-measures"}
_UNFINISHED = ".headrace-optimize-"
ROW_BY_ROW = 0.7
"""What is left in a pool of the speed of a model that runs row by row, as each row pays for its own trips to Redis:
measured with texts of mixed length; with short ones it is less."""


def check_order(order: Order) -> None:
    """Refuse, before anything is loaded, what could not end well.

    Raises:
        ConfigurationError: OUT_DIR is taken, or pools would mistake the new model by its name, or a library is missing.
        UnknownModel: the model's name cannot be one.
    """
    out_dir = order.out_dir
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ConfigurationError(f"{out_dir} exists and is not an empty folder")
    if not out_dir.parent.is_dir():
        raise ConfigurationError(f"there is no folder {out_dir.parent}")
    old, new = resolve(order.task, order.model), resolve(order.task, str(out_dir))
    if new.tag == old.tag:
        raise ConfigurationError(f"pools would take {out_dir} for the original, whose name it has: give it another")
    if order.task == "embed" and prefixes(old.name) != prefixes(new.name):
        wanted = f"such as {Path(old.name).name}-fast" if any(prefixes(old.name)) else "without a model family in it"
        raise ConfigurationError(
            f"pools know a family's prefixes by the name, and {out_dir.name!r} tells other ones than {order.model!r}: "
            f"give OUT_DIR a name {wanted}"
        )
    missing = [library for module, library in _LIBRARIES.items() if find_spec(module) is None]
    if missing:
        raise ConfigurationError(f"optimising needs {' and '.join(missing)}: {_INSTALL}")


def optimize(
    order: Order, sample: JudgedSample, *, cache_dir: Path, threads: int, on_attempt: Callable[[Attempt], object]
) -> Outcome:
    """Try the methods, check each against the original, and put the fastest that passes into OUT_DIR.

    OUT_DIR appears at the end, complete; until then everything is in a folder beside it, which goes in any case.

    Raises:
        ConfigurationError: as `check_order` does; the model cannot be loaded; no method passes.
        UnknownModel: nobody has a model of that name.
    """
    check_order(order)
    # Here, since the tools are an extra and heavy.
    from workers.models.optimize_trial import Bench  # noqa: PLC0415

    out_dir = order.out_dir.absolute()
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=out_dir.parent) as folder:
        bench = Bench(order, sample, Path(folder), cache_dir=cache_dir, threads=threads)
        attempts: list[Attempt] = []
        for method in order.methods:
            attempts.append(bench.attempt(method))
            on_attempt(attempts[-1])
        passed = [(attempt.findings, attempt.method) for attempt in attempts if attempt.findings and not attempt.reason]
        if not passed:
            reasons = "; ".join(f"{attempt.method}: {attempt.reason}" for attempt in attempts)
            raise ConfigurationError(f"no method passes the checks for {order.model} ({reasons})")
        kept, method = max(passed, key=lambda pair: worth(pair[0]))
        finished = bench.directory(method)
        write_findings(finished, kept)
        finished.rename(out_dir)
    return Outcome(attempts=tuple(attempts), method=method, kept=kept)


def worth(findings: Findings) -> float:
    """The speedup that a pool may expect, by which the best is chosen."""
    return findings.speedup * (1.0 if findings.batch_invariant else ROW_BY_ROW)
