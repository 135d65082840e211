"""Finds out at start whether a model's results depend on what shares the batch; such a model runs row by row.

Dynamic int8 does: its ranges are taken over the whole batch, and a cached result would depend on chance.
"""

import numpy as np

from workers.tasks import EmbeddingModel, RerankingModel

_TEXTS = (
    "river",
    "The mill wheel turned all night.",
    "A headrace is the channel that carries water from the river to the wheel of a mill; the tailrace takes it away. "
    * 3,
)
_TOLERANCE = 1e-4
"""Largest difference of a component or a score, alone against in a batch; float32 stays near 1e-6."""


def embedder_is_invariant(model: EmbeddingModel) -> bool:
    """Whether vectors alone and in a batch are the same."""
    together = np.asarray(model.embed(_TEXTS))
    alone = np.concatenate([model.embed([text]) for text in _TEXTS])
    return agree(together, alone)


def reranker_is_invariant(model: RerankingModel) -> bool:
    """Whether scores alone and in a batch are the same."""
    pairs = [(_TEXTS[0], text) for text in _TEXTS]
    together = np.asarray(model.score(pairs))
    alone = np.concatenate([np.asarray(model.score([pair])) for pair in pairs])
    return agree(together, alone)


def agree(together: np.ndarray, alone: np.ndarray) -> bool:
    """Whether two runs of the same rows gave the same results, as far as float32 tells them apart."""
    scale = max(1.0, float(np.abs(alone).max()))
    return bool(np.abs(together - alone).max() <= _TOLERANCE * scale)
