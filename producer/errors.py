"""Every error a user of Headrace can see, with its stable code.

HeadraceError
├── InvalidRequest (ValueError)     what the caller passed cannot be a request
│   └── InvalidText                 a text that no model should see: empty, too long, not Unicode, not a string
├── ConfigurationError              a setting, URL, file or model name that cannot work
│   └── UnknownModel                no model of that name, or no pool that serves it
├── RedisUnavailable                Redis cannot be reached, or refuses (password, permissions, memory)
├── QueueFull                       the lane holds as many rows or bytes as it may
├── ResultTimeout (TimeoutError)    the time was over before the result was there
│   └── ModelNotServed (UnknownModel)   … and no pool serves the model, though others run
├── StoreUnavailable                the vector store cannot be reached, or refuses
├── VerificationFailed              what a re-embedding has written is not what it should be
├── RowFailed                       a worker tried the row and could not compute it
└── MalformedMessage                bytes on the wire that are not a message of this protocol
    └── UnsupportedVersion          a message of another protocol version
"""

import re

__all__ = [
    "ConfigurationError",
    "HeadraceError",
    "InvalidRequest",
    "InvalidText",
    "MalformedMessage",
    "ModelNotServed",
    "QueueFull",
    "RedisUnavailable",
    "ResultTimeout",
    "RowFailed",
    "StoreUnavailable",
    "UnknownModel",
    "UnsupportedVersion",
    "VerificationFailed",
]


_REPEATED = re.compile(
    r",? with args beginning with.*"  # Redis, of a command that it does not know
    r"|Command # \d+ \(.*\) of pipeline caused error: ",  # redis-py, of any command of a pipeline
    re.DOTALL,
)


def redacted(error: BaseException) -> str:
    """What an error of Redis says, without the arguments of the command that it repeats: a login's are secret.

    The error itself is redacted, too, for whoever prints the chain that it is a cause of.
    """
    text = _REPEATED.sub("", str(error))
    if text != str(error):
        error.args = (text,)
    return text


class HeadraceError(Exception):
    """The root of all errors that Headrace raises on purpose. `code` is stable; the text may change."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InvalidRequest(HeadraceError, ValueError):
    """The arguments cannot be a request. Codes: `unknown_kind`, `too_many_documents`, `bad_top_n`, …"""

    code = "invalid_request"


class InvalidText(InvalidRequest):
    """A text that cannot be embedded or ranked. Codes: `empty_text`, `not_text`, `text_too_long`, `not_unicode`."""

    code = "invalid_text"


class ConfigurationError(HeadraceError):
    """A setting, a URL, a file or a name that cannot work; the text says what to change."""

    code = "configuration"


class UnknownModel(ConfigurationError):
    """No model of that name is known, or no pool serves it."""

    code = "unknown_model"


class RedisUnavailable(HeadraceError):
    """Redis cannot be reached or refuses. Codes: `redis_unavailable`, `redis_refused` (password, permissions)."""

    code = "redis_unavailable"


class QueueFull(HeadraceError):
    """The lane holds as many rows or bytes as it may. `estimated_wait_s` is how long the pool needs for what is before
    a new row, or None if no worker runs that could be measured."""

    code = "queue_full"

    def __init__(self, message: str, *, estimated_wait_s: float | None = None) -> None:
        super().__init__(message)
        self.estimated_wait_s = estimated_wait_s


class ResultTimeout(HeadraceError, TimeoutError):
    """The result was not there in time. The text carries the state of the queue at that moment."""

    code = "result_timeout"


class ModelNotServed(ResultTimeout, UnknownModel):
    """The time was over, and no pool has served the model lately, though pools for other models have run."""

    code = "model_not_served"


class RowFailed(HeadraceError):
    """A worker took the row and could not compute it; `code` says why (`model_failed`, `text_too_long`, …)."""

    code = "row_failed"


class StoreUnavailable(HeadraceError):
    """The vector store cannot be reached or refuses. Codes: `store_unavailable`, `store_refused`."""

    code = "store_unavailable"


class VerificationFailed(HeadraceError):
    """What a re-embedding has written does not hold what it should; it is not to be used, and no alias points at it."""

    code = "verification_failed"


class MalformedMessage(HeadraceError):
    """Bytes that are not a message of this protocol: not msgpack, missing or unknown fields, wrong types."""

    code = "malformed_message"


class UnsupportedVersion(MalformedMessage):
    """A message of a protocol version that this release does not speak."""

    code = "unsupported_version"
