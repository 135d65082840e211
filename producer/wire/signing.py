"""Signs reply values, so that whoever can write to Redis, but has no key, cannot pass off results as a pool's."""

import hmac
from hashlib import sha256

SIGNATURE_BYTES = 32


class Seal:
    """HMAC-SHA256 (RFC 2104) over the name of the reply key and its value, in front of the value.

    The name is in it so that no value can be moved to another key. Without a key nothing is signed or checked.
    """

    def __init__(self, key: str = "") -> None:
        self._key = key.encode()

    @property
    def signs(self) -> bool:
        """Whether there is a key."""
        return bool(self._key)

    def close(self, reply_key: str, value: bytes) -> bytes:
        """Make what is stored of a value."""
        return self._signature(reply_key, value) + value if self._key else value

    def open(self, reply_key: str, stored: bytes | None) -> bytes | None:
        """Return the value of what is stored; None if there is nothing, or nothing that verifies."""
        if stored is None or not self._key:
            return stored
        signature, value = stored[:SIGNATURE_BYTES], stored[SIGNATURE_BYTES:]
        return value if hmac.compare_digest(signature, self._signature(reply_key, value)) else None

    def _signature(self, reply_key: str, value: bytes) -> bytes:
        return hmac.digest(self._key, reply_key.encode() + b"\0" + value, sha256)
