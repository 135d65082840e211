"""Re-embeds a source into a sink over the bulk lane, from the last checkpoint of the same run or from the start."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from producer.bulk.checkpoint import Checkpoint, CheckpointFile
from producer.bulk.ends import Sink, Source, Space
from producer.bulk.order import Order
from producer.bulk.progress import Progress
from producer.bulk.run import Run
from producer.client import Producer
from producer.errors import ConfigurationError

_PROBE = "dimension"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run has done, over all its starts. `resumed_rows` were written when this start began."""

    rows: int
    rejected: int
    rejects_path: str
    """The file with the rejects; "" without any."""

    checked: str
    """What the sink has checked of itself, in words."""

    elapsed_s: float
    resumed_rows: int
    model: str
    template: str


def reembed(
    producer: Producer,
    source: Source,
    sink: Sink,
    order: Order,
    *,
    state_dir: Path,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Embed every record of the source that fits into the sink, as the order says (its own `source` and `sink` aside).

    Killed at any moment and called again with `resume=True`, it goes on at its checkpoint in `state_dir`, and the sink
    ends as if nothing had happened. The sink shows nothing before all is there.

    Raises:
        ConfigurationError: an end cannot be used, or a run is unfinished and the order does not say what to do.
        InvalidRequest: the source is not what it claims to be, or too many rows fail (`too_many_failures`).
        StoreUnavailable, RedisUnavailable, ResultTimeout: the run can be resumed.
        VerificationFailed: what the sink holds in the end is not what it should.
    """
    order.check()
    try:
        _check_source(source, sink)
        order = order.settled(source.usual_template())
        space = _space(producer, source, sink, order)
        kept = CheckpointFile(state_dir / "reembed", space.run)
        with kept.held():
            start = _where_to_start(kept, source, sink, order)
            if start.finished:
                _check_there(sink)
                return _outcome(start, kept, space, elapsed_s=0.0, resumed_rows=start.rows)
            sink.check(space, resuming=start.mark is not None, overwrite=order.overwrite)
            run = Run(producer, source, sink, order, space=space, kept=kept, start=start, on_progress=on_progress)
            end = run.carry_out()
            return _outcome(end, kept, space, elapsed_s=run.meter.elapsed_s, resumed_rows=start.rows)
    finally:
        sink.close()
        source.close()


def look(producer: Producer, source: Source, sink: Sink, order: Order, *, state_dir: Path) -> int:
    """Look whether `reembed` could begin, and change nothing; the answer is how many rows are written already.

    Raises what `reembed` would raise at once. The pool must have run.
    """
    order.check()
    try:
        _check_source(source, sink)
        order = order.settled(source.usual_template())
        space = _space(producer, source, sink, order)
        start = _where_to_start(CheckpointFile(state_dir / "reembed", space.run), source, sink, order)
        sink.check(space, resuming=start.mark is not None, overwrite=order.overwrite)
        return start.rows
    finally:
        sink.close()
        source.close()


def _check_source(source: Source, sink: Sink) -> None:
    source.check()
    if _same_file(source.name, sink.name):
        raise ConfigurationError(f"{sink.name} is the source: write to a file of another name")


def _check_there(sink: Sink) -> None:
    """Refuse to call a run done whose file somebody has removed."""
    path = Path(sink.name)
    if path.is_absolute() and not path.exists():
        raise ConfigurationError(f"the run is finished, but {sink.name} is gone: begin anew with --overwrite")


def _same_file(left: str, right: str) -> bool:
    """Whether two ends are files, and one and the same; those that are none are not named from the root."""
    one, other = Path(left), Path(right)
    try:
        return one.is_absolute() and other.is_absolute() and one.samefile(other)
    except OSError:
        return False


def _space(producer: Producer, source: Source, sink: Sink, order: Order) -> Space:
    state = producer.queue_state("embed")
    dimension = state.card.dimension if state.card else producer.embed(_PROBE, order.kind).size
    return Space(
        model=producer.settings.embed_model,
        tag=state.tag,
        dimension=dimension,
        kind=order.kind,
        template=order.template,
        source=source.name,
        run=order.identity(state.tag, source_name=source.name, sink_name=sink.name),
    )


def _where_to_start(kept: CheckpointFile, source: Source, sink: Sink, order: Order) -> Checkpoint:
    """The checkpoint to go on from: what is kept of this run if it is to be resumed, or an empty one."""
    if order.resume and not sink.resumable:
        raise ConfigurationError("what was printed cannot be resumed, it is gone: write to a file")
    found = kept.load()
    fingerprint = source.fingerprint()
    own = found is not None and bool(order.job) and found.job == order.job
    if found and (own or (order.resume and not order.overwrite)):
        if found.fingerprint != fingerprint and not (own and found.finished):
            raise ConfigurationError(f"{source.name} has changed since the run began: begin anew with --overwrite")
        return found
    if found and not found.finished and not order.overwrite and sink.resumable:
        raise ConfigurationError(
            f"a run of this is unfinished, {found.rows} rows are written: go on with --resume, or begin anew with "
            "--overwrite"
        )
    return Checkpoint(run=kept.path.stem, source=source.name, sink=sink.name, fingerprint=fingerprint, job=order.job)


def _outcome(
    checkpoint: Checkpoint, kept: CheckpointFile, space: Space, *, elapsed_s: float, resumed_rows: int
) -> Outcome:
    return Outcome(
        rows=checkpoint.rows,
        rejected=checkpoint.rejected,
        rejects_path=str(kept.rejects_path) if checkpoint.rejected else "",
        checked=checkpoint.checked,
        elapsed_s=elapsed_s,
        resumed_rows=resumed_rows,
        model=space.model,
        template=space.template,
    )
