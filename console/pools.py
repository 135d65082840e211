"""Tells a person at once that nobody serves a model, instead of after the timeout."""

from producer import Producer, UnknownModel
from producer.wire.models import TaskName


def require_pool(producer: Producer, task: TaskName, *, flag: str = "--model") -> None:
    """Check that a pool of the producer's model runs, or has run lately.

    Raises:
        UnknownModel: none has; the text says how to start one, or which models are served. `flag` is
            the command's for its model.
    """
    state = producer.queue_state(task)
    if state.card is None and not any(worker.alive for worker in state.workers):
        model = producer.settings.embed_model if task == "embed" else producer.settings.rerank_model
        served = [other.card.model for other in producer.queue_states() if other.task == task and other.card]
        advice = f"no pool has run; start one with: headrace worker {task} --model {model}"
        if served:
            advice = f"pools run for: {', '.join(served)} ({flag}, or HEADRACE_{task.upper()}_MODEL)"
        raise UnknownModel(f"no {task} pool serves {model!r}; {advice}")
