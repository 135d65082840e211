"""pyarrow, if it is installed, and its errors as one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from producer.bulk.files import unreadable
from producer.errors import ConfigurationError


def load_arrow() -> tuple[ModuleType, ModuleType]:
    """`pyarrow` and `pyarrow.parquet`.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import pyarrow  # noqa: PLC0415 - heavy, and only Parquet needs it
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("pyarrow is not installed: pip install 'headrace[parquet]'") from error
    return pyarrow, pyarrow.parquet


@contextmanager
def reading_parquet(path: str) -> Iterator[None]:
    """Map pyarrow's errors of reading a Parquet file.

    Raises:
        ConfigurationError: it is no Parquet file, not a whole one, or uses what this pyarrow cannot read.
    """
    pyarrow, _ = load_arrow()
    try:
        yield
    except OSError as error:
        # pyarrow raises it, too, where the bytes make no sense; then without a number.
        raise unreadable(path, error) if error.errno else damaged(path) from error
    except (ValueError, LookupError, MemoryError) as error:  # ArrowInvalid is a ValueError
        raise damaged(path) from error
    except pyarrow.ArrowException as error:
        raise unconvertible(path, error) from error


def damaged(path: str) -> ConfigurationError:
    """One line for a file whose bytes make no sense."""
    return ConfigurationError(f"{path} is cut off or damaged: it is not a whole Parquet file")


def unconvertible(path: str, error: Exception) -> ConfigurationError:
    """One line for a file with something in it that cannot be had, such as a date after the year 9999."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ConfigurationError(f"{path} cannot be read: {reason}")
