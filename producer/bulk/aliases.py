"""Moves an alias from a collection to another and back, in one operation each; never to one that is half-filled."""

import dataclasses
from dataclasses import dataclass
from typing import Protocol

from producer.bulk.collections import named
from producer.errors import ConfigurationError
from producer.provenance import Provenance


class AliasStore(Protocol):
    """What moving an alias needs of a store; the methods are those of `Collections`."""

    def aliases(self) -> dict[str, str]: ...

    def names(self) -> list[str]: ...

    def exists(self, name: str) -> bool: ...

    def provenance(self, name: str) -> Provenance | None: ...

    def count(self, name: str) -> int: ...

    def describe(self, name: str, provenance: Provenance) -> None: ...

    def point(self, alias: str, target: str, *, current: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Move:
    """An alias, the collection it is to point at, and the one it points at now ("" for an alias that is to be made).

    `provenance` is the target's: whose vectors searches will meet; None where no run of ours filled it.
    """

    alias: str
    target: str
    current: str
    provenance: Provenance | None


def plan_switch(
    collections: AliasStore, alias: str, to: str = "", *, create: bool = False, partial: bool = False
) -> Move:
    """Choose where an alias goes: to `to`, or to the one complete collection that was filled from where it points now.

    So a switch that is repeated, since nobody knows whether the first one arrived, does not go back to an older
    collection. `create` makes an alias that is not there yet; that one may also take over a collection that no run has
    filled. `partial` takes a collection that holds a part of the data only.

    Raises:
        ConfigurationError: there is no such alias or target, or not one target but none or several; the target is
            not complete, or empty, or has fewer points than would be found now.
    """
    current = _current(collections, alias, create=create, advice="; to make it, --create")
    target = to or _only_candidate(collections, alias, current)
    if target == current:
        raise ConfigurationError(f"{alias} points at {target} already")
    if not collections.exists(target):
        raise ConfigurationError(f"there is no collection {target!r}: there are {named(collections.names())}")
    provenance = collections.provenance(target)
    if provenance is None and current:
        raise ConfigurationError(
            f"{target} does not say whose vectors it holds, since no `headrace reembed` filled it: {alias} stays at "
            f"{current}"
        )
    if provenance:
        _check_complete(target, provenance)
        if provenance.partial and not partial:
            raise ConfigurationError(f"{target} holds a part of the data only: to switch to it all the same, --partial")
    if not (points := collections.count(target)):
        raise ConfigurationError(f"{target} has no points: {alias} stays where it is")
    lacking = collections.count(current) - points - (provenance.rejected if provenance else 0) if current else 0
    if lacking > 0 and not partial:
        raise ConfigurationError(
            f"{target} lacks {lacking:,} points of {current}, which came after they had been read, or were deleted: "
            "fill another collection (what is cached does not travel again), or take it as it is with --partial"
        )
    return Move(alias=alias, target=target, current=current, provenance=provenance)


def plan_rollback(collections: AliasStore, alias: str) -> Move:
    """Choose where an alias was before it was moved to where it is.

    Raises:
        ConfigurationError: there is no such alias; nobody knows where it was; that collection is gone or incomplete.
    """
    current = _current(collections, alias, create=False)
    here = collections.provenance(current)
    before = here.previous.get(alias, "") if here else ""
    if not before:
        raise ConfigurationError(
            f"{current} does not say where {alias} pointed before: name a collection with: "
            f"headrace reembed switch {alias} --to COLLECTION"
        )
    if not collections.exists(before):
        raise ConfigurationError(f"{before}, where {alias} pointed before, is gone")
    provenance = collections.provenance(before)
    if provenance:
        _check_complete(before, provenance)
    return Move(alias=alias, target=before, current=current, provenance=provenance)


def carry_out(collections: AliasStore, move: Move) -> None:
    """Move the alias. The target first notes where the alias was, so that whatever happens, it can go back.

    A rollback notes it too: it is undone by another rollback. A collection that no run filled has no place for the
    note; from there the alias goes forward by a switch.
    """
    if move.provenance and move.current:
        previous = {**move.provenance.previous, move.alias: move.current}
        collections.describe(move.target, dataclasses.replace(move.provenance, previous=previous))
    collections.point(move.alias, move.target, current=move.current)


def lost(collections: AliasStore, move: Move) -> int:
    """How many points fewer there are where an alias has been moved to."""
    return max(0, collections.count(move.current) - collections.count(move.target)) if move.current else 0


def _current(collections: AliasStore, alias: str, *, create: bool, advice: str = "") -> str:
    """Where the alias points; "" if it is to be made. `advice` is for the error where there is none."""
    aliases = collections.aliases()
    if alias in aliases:
        return aliases[alias]
    if collections.exists(alias):
        raise ConfigurationError(
            f"{alias} is a collection, and only an alias can be moved: make one with headrace reembed switch ALIAS "
            f"--to {alias} --create, and let searches ask for that"
        )
    if not create:
        raise ConfigurationError(f"there is no alias {alias!r}: there are {named(aliases)}{advice}")
    return ""


def _only_candidate(collections: AliasStore, alias: str, current: str) -> str:
    """The complete collection that a run filled for the alias, from where it points now."""
    candidates: list[str] = []
    filling: list[str] = []
    others: list[str] = []
    for name in collections.names():
        provenance = collections.provenance(name)
        if provenance and provenance.alias == alias and name != current:
            fits = not current or provenance.replaces == current
            (filling if provenance.state != "complete" else candidates if fits else others).append(name)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise ConfigurationError(f"{alias} can go to {named(candidates)}: name one with --to")
    waiting = f"; {named(filling)} is not complete yet" if filling else ""
    told = f"; {named(others)} was filled when {alias} pointed elsewhere" if others else ""
    raise ConfigurationError(
        f"no complete collection was filled for {alias} from {current or 'anything'}: name one with --to{waiting}{told}"
    )


def _check_complete(target: str, provenance: Provenance) -> None:
    if provenance.state != "complete":
        raise ConfigurationError(
            f"{target} is not complete: the run that fills it has not ended or was not verified; resume that run"
        )
