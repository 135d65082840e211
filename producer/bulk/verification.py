"""Looks whether a collection holds what a run has written: a sample of points, embedded again from their payloads."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from producer.bulk.collections import Collections
from producer.bulk.ends import Embed
from producer.errors import InvalidText, VerificationFailed
from producer.requests import clean_text
from producer.results import Vector
from producer.templates import TextTemplate

SAMPLE = 32
LEAST_COSINE = 0.999
"""Batches of another make-up move a float32 vector by far less, another model's or text's vector by far more."""


class Sample:
    """Ids of points drawn while they are written, each with the same chance, always the same ones of one run.

    The method is reservoir sampling (Vitter 1985, algorithm R); chance comes from the run and the number of the row.
    """

    def __init__(self, run: str, *, rows: int = 0, ids: Sequence[Any] = ()) -> None:
        self._run = run
        self.rows = rows
        self.ids = list(ids)

    def add(self, point_id: Any) -> None:
        """Note that a point was written."""
        self.rows += 1
        if len(self.ids) < SAMPLE:
            self.ids.append(point_id)
            return
        place = Random(f"{self._run}:{self.rows}").randrange(self.rows)  # noqa: S311 - a sample, and no secret
        if place < SAMPLE:
            self.ids[place] = point_id


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How many points were embedded again, and the least cosine between what is stored and what came."""

    points: int
    least_cosine: float


def compare(collections: Collections, name: str, ids: Sequence[str | int], template: str, embed: Embed) -> Compared:
    """Embed points again.

    Raises:
        VerificationFailed: some are not there, or hold other vectors than their texts have.
    """
    wanted = list(dict.fromkeys(ids))
    points = collections.points(name, wanted)
    if len(points) < len(wanted):
        raise VerificationFailed(f"{name} lacks {len(wanted) - len(points)} of {len(wanted)} points that were written")
    if not points:
        return Compared(points=0, least_cosine=1.0)
    cosines = _cosines(np.asarray([point.vector for point in points]), embed(_texts(points, name, template)))
    wrong = int((cosines < LEAST_COSINE).sum())
    least = float(cosines.min())
    if wrong:
        raise VerificationFailed(
            f"{wrong} of {len(points)} points of {name} hold another vector than their text has "
            f"(least cosine {least:.4f})"
        )
    return Compared(points=len(points), least_cosine=least)


def _texts(points: Sequence[Any], name: str, template: str) -> list[str]:
    """The texts of points as they were sent."""
    render = TextTemplate(template).render
    try:
        return [clean_text(render(point.payload or {}), sys.maxsize) for point in points]
    except InvalidText as error:
        raise VerificationFailed(f"a point of {name} has lost its text: {error}") from error


def _cosines(stored: Any, fresh: Vector) -> Any:
    """Cosines of pairs, float64; nan (of a vector of zeros) counts as -1."""
    left, right = stored.astype(np.float64), fresh.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return np.nan_to_num(cosines, nan=-1.0)
