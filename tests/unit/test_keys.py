"""Key names, digests and tags: golden values, and what must and must not change them."""

import pytest

from producer.errors import ConfigurationError
from producer.wire.keys import (
    DIGEST_BYTES,
    Kind,
    Lane,
    QueueKeys,
    SearchKeys,
    digest,
    hint_channel,
    normalise,
    pools_key,
    search_digest,
)
from producer.wire.models import DEFAULT_EMBED_MODEL, DEFAULT_RERANK_MODEL, ModelSpec, TaskName, prefixes, resolve

DIGEST = bytes(range(16))
HEX = "000102030405060708090a0b0c0d0e0f"


@pytest.mark.parametrize(("namespace", "prefix"), [("", ""), ("blue", "blue:")])
def test_key_names_are_fixed(namespace: str, prefix: str) -> None:
    queue = QueueKeys(task="embed", tag="e5-12345678", namespace=namespace)

    assert queue.lane(Lane.INTERACTIVE) == f"{prefix}{{embed:e5-12345678}}:jobs"
    assert queue.lane(Lane.BULK) == f"{prefix}{{embed:e5-12345678}}:bulk"
    assert queue.wait(DIGEST) == f"{prefix}{{embed:e5-12345678}}:wait:{HEX}"
    assert queue.dead == f"{prefix}{{embed:e5-12345678}}:dead"
    assert queue.card == f"{prefix}{{embed:e5-12345678}}:model"
    assert queue.workers == f"{prefix}{{embed:e5-12345678}}:workers"
    assert queue.stats == f"{prefix}{{embed:e5-12345678}}:stats"
    assert queue.reply(DIGEST) == f"{prefix}emb:e5-12345678:{HEX}"
    assert hint_channel("abc", namespace) == f"{prefix}hint:abc"
    assert pools_key(namespace) == f"{prefix}pools"


def test_a_score_has_a_reply_key_of_its_own_kind() -> None:
    assert QueueKeys(task="rerank", tag="bge-12345678").reply(DIGEST) == f"rr:bge-12345678:{HEX}"


def test_what_a_script_touches_lies_in_one_cluster_slot_and_replies_do_not() -> None:
    queue = QueueKeys(task="embed", tag="t", namespace="blue")
    touched = [queue.lane(Lane.INTERACTIVE), queue.lane(Lane.BULK), queue.wait(DIGEST)]

    assert {key[key.index("{") : key.index("}") + 1] for key in touched} == {"{embed:t}"}
    assert "{" not in queue.reply(DIGEST)


@pytest.mark.parametrize(
    ("kind", "text", "query", "expected"),
    [
        (Kind.QUERY, "Apple", None, "cb2ffaa0e3a3b0602800587532ba49ec"),
        (Kind.QUERY, "Bär", None, "492354d59f263bf1215f3a036bf8470d"),
        (Kind.PASSAGE, "Apple", None, "0c1ff55f6d4fac04c9eb0ad42ef05513"),
        (Kind.PAIR, "a lake", "where can I swim?", "83e0266e7df7b0e558c476ca64145aa7"),
    ],
)
def test_digests_are_fixed(kind: Kind, text: str, query: str | None, expected: str) -> None:
    assert digest(kind, text, query).hex() == expected
    assert len(digest(kind, text, query)) == DIGEST_BYTES


def test_digests_tell_apart_what_a_model_tells_apart() -> None:
    rows = [
        (Kind.QUERY, "Apple", None),
        (Kind.QUERY, "apple", None),
        (Kind.PASSAGE, "apple", None),
        (Kind.PAIR, "apple", None),
        (Kind.PAIR, "apple", "a"),
        (Kind.PAIR, "a", "apple"),
    ]

    assert len({digest(*row) for row in rows}) == len(rows)


def test_the_boundary_between_query_and_document_is_part_of_the_digest() -> None:
    splits = [("", "3:abc"), ("3", ":abc"), ("3:", "abc"), ("3:a", "bc"), ("3:abc", "")]

    assert len({digest(Kind.PAIR, text, query) for query, text in splits}) == len(splits)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("one\ntwo", "one two"),
        ("one\r\ntwo", "one two"),
        ("one\rtwo", "one two"),
        ("\n one \u00a0\t\r\n", "one"),
        ("one  two", "one  two"),
        ("One\n\nTwo", "One  Two"),
        ("\u3000", ""),
    ],
)
def test_normalising_flattens_lines_and_strips_and_keeps_the_rest(written: str, sent: str) -> None:
    assert normalise(written) == sent
    assert normalise(sent) == sent


@pytest.mark.parametrize(
    ("task", "model", "tag"),
    [
        ("embed", DEFAULT_EMBED_MODEL, "multilingual-e5-large-be561c4d"),
        ("rerank", DEFAULT_RERANK_MODEL, "bge-reranker-base-d4384693"),
        ("embed", "offline", "offline-03769976"),
        ("rerank", "offline", "offline-bc6f7ab0"),
    ],
)
def test_tags_are_fixed(task: TaskName, model: str, tag: str) -> None:
    assert resolve(task, model).tag == tag
    assert QueueKeys.of(resolve(task, model), "blue") == QueueKeys(task=task, tag=tag, namespace="blue")


def test_whatever_changes_the_output_changes_the_tag() -> None:
    specs = [
        ModelSpec(task="embed", name="m"),
        ModelSpec(task="rerank", name="m"),
        ModelSpec(task="embed", name="n"),
        ModelSpec(task="embed", name="org/m"),
        ModelSpec(task="embed", name="m", revision="2"),
        ModelSpec(task="embed", name="m", query_prefix="query: "),
        ModelSpec(task="embed", name="m", passage_prefix="query: "),
        ModelSpec(task="embed", name="m", pooling="cls"),
        ModelSpec(task="embed", name="m", max_tokens=256),
        ModelSpec(task="embed", name="m", output="int8"),
    ]

    assert len({spec.tag for spec in specs}) == len(specs)


def test_a_revision_behind_the_name_makes_another_tag_of_the_same_model() -> None:
    plain, labelled = resolve("embed", "intfloat/e5-base"), resolve("embed", "intfloat/e5-base@2024-06")

    assert plain.tag != labelled.tag
    assert (labelled.name, labelled.revision) == ("intfloat/e5-base", "2024-06")
    assert labelled.query_prefix == "query: "
    assert resolve("embed", "offline@2").max_tokens == resolve("embed", "offline").max_tokens


@pytest.mark.parametrize(
    "path", ["/models/my-model", "/elsewhere/my-model/", "models/my-model/", "./my-model", "../my-model", "~/my-model"]
)
def test_a_directory_is_known_by_its_last_component(path: str) -> None:
    assert resolve("embed", path).name == "my-model"
    assert resolve("embed", path).tag == "my-model-66ab6c57"


def test_a_name_with_a_slash_inside_is_a_hub_name_and_no_directory() -> None:
    assert resolve("embed", "org/my-model").name == "org/my-model"


@pytest.mark.parametrize("name", ["", "@2", "a\nb", "a\x00b", "a" * 513, "m@", "m@a b", "m@1@2", "/", ".", "..", "./"])
def test_names_that_no_model_has_are_refused(name: str) -> None:
    if name == "m@":  # an empty label is no label
        assert resolve("embed", name) == resolve("embed", "m")
        return
    with pytest.raises(ConfigurationError):
        resolve("embed", name)


@pytest.mark.parametrize("name", [None, 7, b"offline"])
def test_a_name_that_is_no_string_is_refused(name: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve("embed", name)  # type: ignore[arg-type]
    assert caught.value.code == "unknown_model"


def test_the_slug_holds_safe_characters_only_and_is_never_empty() -> None:
    assert resolve("embed", "org/Ünïcode {model}:*").tag.rsplit("-", 1)[0] == "n-code-model"
    assert resolve("embed", "日本").tag.rsplit("-", 1)[0] == "model"
    assert len(resolve("embed", "x" * 400).tag) == 32 + 1 + 8


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/multilingual-e5-large", ("query: ", "passage: ")),
        ("intfloat/e5-small-v2", ("query: ", "passage: ")),
        ("nomic-ai/nomic-embed-text-v1.5", ("search_query: ", "search_document: ")),
        ("snowflake/snowflake-arctic-embed-m", ("Represent this sentence for searching relevant passages: ", "")),
        ("mixedbread-ai/mxbai-embed-large-v1", ("Represent this sentence for searching relevant passages: ", "")),
        ("BAAI/bge-small-en-v1.5", ("", "")),
        ("sentence-transformers/all-MiniLM-L6-v2", ("", "")),
        ("offline", ("", "")),
        ("org/some-e5like", ("", "")),
    ],
)
def test_prefixes_are_those_of_the_model_cards(name: str, expected: tuple[str, str]) -> None:
    assert prefixes(name) == expected
    spec = resolve("embed", name)
    assert (spec.query_prefix, spec.passage_prefix) == expected


def test_a_reranker_has_no_prefixes_whatever_its_name() -> None:
    spec = resolve("rerank", "org/e5-reranker")

    assert (spec.query_prefix, spec.passage_prefix) == ("", "")


@pytest.mark.parametrize(("namespace", "prefix"), [("", ""), ("blue", "blue:")])
@pytest.mark.parametrize(("user", "shown"), [(7, "7"), ("7", "7"), ("a:b/ü", "a%3Ab%2F%C3%BC"), ("a b%", "a%20b%25")])
def test_the_keys_of_searches_are_fixed(namespace: str, prefix: str, user: str | int, shown: str) -> None:
    keys = SearchKeys(user_id=user, namespace=namespace)

    assert keys.entry(HEX) == f"{prefix}search:{shown}:{HEX}"
    assert keys.generation == f"{prefix}search:{shown}:generation"
    assert keys.entries == f"{prefix}search:{shown}:entries"


def test_the_digest_of_a_search_is_fixed_and_its_parts_stay_apart() -> None:
    assert search_digest("a", "bc") == "5310a58788781ab25d5ad7c3f8503582"
    assert (
        len({search_digest("a", "bc"), search_digest("ab", "c"), search_digest("abc"), search_digest("a", "b", "c")})
        == 4
    )
