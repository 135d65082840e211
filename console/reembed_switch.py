"""The commands that move an alias to a re-embedded collection and back."""

import dataclasses
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from producer import ConfigurationError, Producer, ProducerSettings, UnknownModel
from producer.bulk.alias_stores import open_alias_store
from producer.bulk.aliases import AliasStore, Move, carry_out, lost, plan_rollback, plan_switch
from producer.errors import RedisUnavailable, StoreUnavailable
from producer.provenance import Provenance
from producer.qdrant import LOCAL, QdrantAddress
from producer.settings import StoreSettings, load
from workers.options import Command, settings_options

_NOT_FOR_LOOKING = {
    "embed_model", "rerank_model", "timeout_s", "bulk_timeout_s", "max_text_bytes", "lane_limit", "lane_limit_bytes",
}  # fmt: skip

_store_options = settings_options(StoreSettings, leave_out={"state_dir"})
_redis_options = settings_options(ProducerSettings, leave_out=_NOT_FOR_LOOKING)
_without_pool = click.option(
    "--without-pool", is_flag=True, help="Do not look whether a pool serves the model of the new collection."
)


@click.command("switch", cls=Command, epilog="Example: headrace reembed switch contacts")
@click.argument("alias")
@click.option("--to", default="", metavar="COLLECTION", help="Where to; without it, the one that was filled for ALIAS.")
@click.option("--create", is_flag=True, help="Make the alias if it is not there.")
@click.option(
    "--partial",
    is_flag=True,
    help="Take a collection that holds a part of the data, or lacks points of the present one.",
)
@_without_pool
@_store_options
@_redis_options
def switch(alias: str, to: str, *, create: bool, partial: bool, without_pool: bool, **flags: Any) -> None:
    """Point ALIAS at a complete collection, in one operation.

    ALIAS is a name in the store of HEADRACE_QDRANT_URL, or a URL (qdrant://host:6333/contacts).
    """
    with _opened(alias, flags) as (collections, name):
        move = plan_switch(collections, name, to, create=create, partial=partial)
        _move(collections, move, alias, flags, without_pool=without_pool)


@click.command("rollback", cls=Command, epilog="Example: headrace reembed rollback contacts")
@click.argument("alias")
@_without_pool
@_store_options
@_redis_options
def rollback(alias: str, *, without_pool: bool, **flags: Any) -> None:
    """Point ALIAS back at where it was before, in one operation.

    ALIAS is a name in the store of HEADRACE_QDRANT_URL, or a URL (qdrant://host:6333/contacts).
    """
    with _opened(alias, flags) as (collections, name):
        move = plan_rollback(collections, name)
        _move(collections, move, alias, flags, without_pool=without_pool)


@contextmanager
def _opened(alias: str, flags: dict[str, Any]) -> Iterator[tuple[AliasStore, str]]:
    """The store of an alias, and the alias's bare name."""
    store = load(StoreSettings, os.environ, **_of(StoreSettings, flags))
    if "://" in alias or alias.startswith(LOCAL):
        address = QdrantAddress.parse(alias)
    elif store.qdrant_url:
        address = dataclasses.replace(QdrantAddress.parse(store.qdrant_url), collection=alias)
    else:
        raise ConfigurationError(f"in which Qdrant is {alias}? Set HEADRACE_QDRANT_URL, or write a URL instead")
    with open_alias_store(address, store.qdrant_api_key) as collections:
        yield collections, address.collection


def _move(collections: AliasStore, move: Move, alias: str, flags: dict[str, Any], *, without_pool: bool) -> None:
    if move.provenance and not without_pool:
        _require_pool(move.provenance, flags)
    carry_out(collections, move)
    if not move.current:
        click.echo(f"{move.alias} → {move.target} (new)")
        return
    shown = shlex.quote(alias)
    back = f"rollback {shown}" if move.provenance else f"switch {shown} --to {shlex.quote(move.current)}"
    click.echo(f"{move.alias} → {move.target} (was {move.current}); back with: headrace reembed {back}")
    with suppress(StoreUnavailable):  # the alias is moved, whatever can be told of it
        if fewer := lost(collections, move):
            click.echo(
                f"{move.target} has {fewer:,} points fewer than {move.current}: they are not found now", err=True
            )


def _require_pool(provenance: Provenance, flags: dict[str, Any]) -> None:
    """Refuse a collection whose model nobody serves: searches in it would fail."""
    settings = load(ProducerSettings, os.environ, **_of(ProducerSettings, flags), embed_model=provenance.model)
    try:
        with Producer(settings) as producer:
            state = producer.queue_state("embed")
    except RedisUnavailable as error:
        raise RedisUnavailable(f"{error} (--without-pool moves the alias all the same)", code=error.code) from error
    if state.tag != provenance.tag:
        raise UnknownModel(
            f"the vectors are of {provenance.tag}, and here {provenance.model} is {state.tag}: searches would compare "
            "different models (--without-pool moves the alias all the same)"
        )
    if not any(worker.healthy for worker in state.workers):
        raise UnknownModel(
            f"no pool serves {provenance.model}, so searches would fail: start one with headrace worker embed --model "
            f"{provenance.model}, or pass --without-pool"
        )


def _of(cls: type, flags: dict[str, Any]) -> dict[str, Any]:
    """Those flags that are fields of a settings class."""
    fields = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in flags.items() if name in fields}
