"""Settings: frozen dataclasses whose fields know their environment variable, so that one table serves all.

Flag beats environment beats default. Nothing here reads the environment by itself: `load` is given it.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from producer.errors import ConfigurationError
from producer.wire.models import DEFAULT_EMBED_MODEL, DEFAULT_RERANK_MODEL

Settings = TypeVar("Settings")

_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
_SHORTEST_KEY = 16
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


def setting(
    default: Any,
    env: str,
    help_text: str,
    *,
    minimum: float | None = None,
    secret: bool = False,
    shown: bool = True,
) -> Any:
    """A dataclass field with its environment variable, its help line and the least value it takes.

    A secret (a string) may also come from a file that `<env>_FILE` names; it has no flag, since every user of a
    machine can read command lines. Neither a secret nor a field that is not `shown` is part of the settings' repr.
    """
    if secret:
        help_text = f"{help_text} {env}_FILE names a file with it."
    metadata = {"env": env, "help": help_text, "minimum": minimum, "secret": secret}
    return dataclasses.field(default=default, repr=shown and not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class SharedSettings:
    """What producers and workers must agree on."""

    redis_url: str = setting(
        "redis://localhost:6379/0",
        "REDIS_URL",
        "Redis to use (redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://).",
        shown=False,  # it may hold a password
    )
    redis_user: str = setting("", "HEADRACE_REDIS_USER", "User at Redis, unless the URL names a user or a password.")
    redis_password: str = setting(
        "", "HEADRACE_REDIS_PASSWORD", "Password at Redis, unless the URL holds one.", secret=True
    )
    embed_model: str = setting(DEFAULT_EMBED_MODEL, "HEADRACE_EMBED_MODEL", "Model of the embed pool.")
    rerank_model: str = setting(DEFAULT_RERANK_MODEL, "HEADRACE_RERANK_MODEL", "Model of the rerank pool.")
    namespace: str = setting("", "HEADRACE_NAMESPACE", "Prefix of every key, to share one Redis.")
    cache_key: str = setting(
        "",
        "HEADRACE_CACHE_KEY",
        "Key that signs results, of 16 characters or more; the same for producers and pools.",
        secret=True,
    )
    max_text_bytes: int = setting(
        65536, "HEADRACE_MAX_TEXT_BYTES", "Longest text accepted, in bytes of UTF-8.", minimum=1
    )

    def __post_init__(self) -> None:
        _check_values(self)
        _check_namespace(self.namespace)
        if 0 < len(self.cache_key) < _SHORTEST_KEY:
            raise ConfigurationError(f"HEADRACE_CACHE_KEY must have {_SHORTEST_KEY} characters or more")


@dataclass(frozen=True, kw_only=True)
class ProducerSettings(SharedSettings):
    """What a producer is told besides: how long it waits, and how much may wait for it."""

    timeout_s: float = setting(30.0, "HEADRACE_TIMEOUT_S", "Longest wait for a result, in seconds.", minimum=0.001)
    bulk_timeout_s: float = setting(
        600.0, "HEADRACE_BULK_TIMEOUT_S", "Longest wait without progress in bulk work, in seconds.", minimum=0.001
    )
    lane_limit: int = setting(100_000, "HEADRACE_LANE_LIMIT", "Most rows that one lane holds.", minimum=1)
    lane_limit_bytes: int = setting(
        256 * 1024 * 1024, "HEADRACE_LANE_LIMIT_BYTES", "Most bytes of text that one lane holds.", minimum=1
    )


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """What re-embedding and search are told besides: the vector store, and where runs keep their checkpoints."""

    qdrant_url: str = setting(
        "",
        "HEADRACE_QDRANT_URL",
        "Collection or alias to search (qdrant://host:6333/name, qdrant+https://…, qdrant+local:FOLDER#name).",
    )
    qdrant_api_key: str = setting("", "HEADRACE_QDRANT_API_KEY", "API key of Qdrant.", secret=True)
    state_dir: str = setting(
        "", "HEADRACE_STATE_DIR", "Folder for checkpoints and rejects; without it ~/.local/state/headrace."
    )

    def __post_init__(self) -> None:
        _check_values(self)


def load(cls: type[Settings], environ: Mapping[str, str], **flags: Any) -> Settings:
    """Build settings from flags (those that are not None), then the environment, then the defaults.

    Raises:
        ConfigurationError: a value cannot be read as its type, or is out of range.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        env = field.metadata["env"]
        if (flag := flags.get(field.name)) is not None:
            values[field.name] = flag
        elif (text := _read_secret(env, environ) if field.metadata["secret"] else environ.get(env, "")) != "":
            values[field.name] = _parse(env, text, type(field.default))
    return cls(**values)


def _read_secret(env: str, environ: Mapping[str, str]) -> str:
    """Take a secret from its variable or from the file that another one names; the errors show neither."""
    value, path = environ.get(env, ""), environ.get(f"{env}_FILE", "")
    if not path:
        return value
    if value:
        raise ConfigurationError(f"{env} and {env}_FILE are both set: keep one of them")
    try:
        value = Path(path).read_text(encoding="utf-8-sig").rstrip("\r\n")
    except OSError as error:
        raise ConfigurationError(f"the file that {env}_FILE names cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"the file that {env}_FILE names is not text in UTF-8") from None
    if not value:
        raise ConfigurationError(f"the file that {env}_FILE names is empty")
    return value


def _check_values(settings: Any) -> None:
    """Refuse a value of another type than its field's, a number below its least, infinity and NaN."""
    for field in dataclasses.fields(settings):
        env, minimum = field.metadata["env"], field.metadata["minimum"]
        label = f"{env} (--{field.name.replace('_', '-')})"
        value: Any = getattr(settings, field.name)
        kind: type = type(field.default)
        fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
        if isinstance(value, str) and not value.isascii() and _is_broken(value):
            raise ConfigurationError(f"{env} is not text in UTF-8")
        if not fits:
            code = "bad_redis_url" if env == "REDIS_URL" else None
            raise ConfigurationError(f"{label} must be {_NOUNS[kind]}, not {type(value).__name__}", code=code)
        if minimum is not None and not minimum <= value < math.inf:
            raise ConfigurationError(f"{label} must be at least {minimum:g} and finite, not {value:g}")


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _check_namespace(namespace: str) -> None:
    """Refuse a namespace that would break the hash tags or the key patterns."""
    if not all(character.isalnum() or character in "-_.:" for character in namespace):
        raise ConfigurationError(
            f"HEADRACE_NAMESPACE {namespace!r} may hold letters, digits and '-', '_', '.', ':' only"
        )


def _parse(env: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigurationError(f"{env} must be {_NOUNS[bool]}, not {text!r}")
        return text.lower() in _TRUE
    try:
        return kind(text)
    except ValueError:
        raise ConfigurationError(f"{env} must be {_NOUNS[kind]}, not {text!r}") from None
