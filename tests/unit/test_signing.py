"""Signatures of reply values: what verifies, what does not, and the bytes they are."""

import hmac

import pytest

from producer.errors import ConfigurationError
from producer.settings import ProducerSettings, load
from producer.wire.signing import SIGNATURE_BYTES, Seal

KEY = "a key of 16 characters or more"
SEAL = Seal(KEY)


def test_the_signature_is_an_hmac_over_name_and_value_in_front_of_the_value() -> None:
    stored = SEAL.close("emb:tag:00", b"value")

    assert stored == hmac.digest(KEY.encode(), b"emb:tag:00\0value", "sha256") + b"value"
    assert len(stored) == SIGNATURE_BYTES + 5
    assert SEAL.open("emb:tag:00", stored) == b"value"


def test_what_was_changed_moved_cut_or_never_signed_does_not_verify() -> None:
    stored = SEAL.close("emb:tag:00", b"value")

    for position in range(len(stored)):
        changed = stored[:position] + bytes([stored[position] ^ 1]) + stored[position + 1 :]
        assert SEAL.open("emb:tag:00", changed) is None
    assert SEAL.open("emb:tag:01", stored) is None, "of another row"
    assert Seal(KEY + "!").open("emb:tag:00", stored) is None
    assert [SEAL.open("emb:tag:00", stored[:length]) for length in (0, 5, 32, 36)] == [None] * 4
    assert SEAL.open("emb:tag:00", b"value") is None
    assert SEAL.open("emb:tag:00", None) is None


def test_without_a_key_values_are_stored_as_they_are() -> None:
    assert not Seal().signs
    assert Seal().close("emb:tag:00", b"value") == b"value"
    assert Seal().open("emb:tag:00", b"value") == b"value"


def test_a_short_key_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_CACHE_KEY must have 16 characters") as refusal:
        load(ProducerSettings, {"HEADRACE_CACHE_KEY": "guess me"})
    assert "guess" not in str(refusal.value)


def test_a_key_is_no_part_of_what_settings_print() -> None:
    assert KEY not in repr(ProducerSettings(cache_key=KEY))
