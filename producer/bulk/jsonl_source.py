"""JSON Lines as a source of records: a file, a gzip file, or standard input."""

import json
import math
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import IO

from producer.bulk.conditions import Conditions
from producer.bulk.ends import Json, Record, Spoilt
from producer.bulk.files import STANDARD, absolute, fingerprint, opened, rereadable, zipped
from producer.bulk.identity import record_of
from producer.errors import ConfigurationError, InvalidRequest

_LONGEST_LINE_MIB = 64
"""No record is longer; a file without line ends must not fill the memory."""


class JsonlSource:
    """Reads one object a line; blank lines are skipped. A position is how many lines and bytes (unzipped) are behind.

    Numbers that JSON does not know (NaN, infinities) are read as null.
    """

    unique_ids = False

    def __init__(self, path: str, id_field: str) -> None:
        """`path` is "-" for standard input, which can be read once only; a name that ends in .gz is gzip."""
        self.path = path
        self.name = absolute(path)
        self._id_field = id_field
        self._place = "standard input" if path == STANDARD else path
        self._spent = False

    def check(self) -> None:
        """Open it, and read the beginning of a file; raise ConfigurationError if it cannot be read."""
        if rereadable(self.path):
            with opened(self.path) as stream:
                stream.read(1)

    def fingerprint(self) -> Json:
        """A file's size and time; None for standard input and pipes."""
        return fingerprint(self.path)

    def usual_template(self) -> str:
        """Nothing here says how texts are made."""
        return ""

    def count(self, where: Conditions) -> int | None:
        """The lines of a plain file that are not blank, none of them decoded; None where that would cost more."""
        if where or zipped(self.path) or not rereadable(self.path):
            return None
        with opened(self.path) as stream:
            return sum(not line.isspace() for _, line in self._lines(stream, 0))

    def close(self) -> None:
        """Nothing stays open once nobody asks for records."""

    def records(self, where: Conditions, after: Json = None) -> Iterator[Record | Spoilt]:
        """Yield the records that fit, in order, after a position.

        Raises:
            ConfigurationError: it cannot be read, or ends too early.
            InvalidRequest: a line is too long (`bad_record`); with its number.
        """
        if self.path == STANDARD:
            if self._spent:
                raise ConfigurationError("standard input can be read only once")
            self._spent = True
        behind, offset = after or (0, 0)
        with opened(self.path) as stream:
            if after:
                self._skip(stream, behind, offset)
            for number, line in self._lines(stream, behind):
                offset += len(line)
                if line.isspace():
                    continue
                place = f"{self._place} line {number}"
                position = [number, offset]
                try:
                    fields = _DECODER.decode((line.removeprefix(BOM_UTF8) if number == 1 else line).decode())
                except (ValueError, RecursionError):
                    yield Spoilt(reason="is not JSON", position=position, place=place, damaged=True)
                    continue
                if not isinstance(fields, dict):
                    yield Spoilt(reason="is not a JSON object", position=position, place=place)
                elif where.fit(fields):
                    yield record_of(fields, self._id_field, position=position, place=place)

    def _lines(self, stream: IO[bytes], number: int) -> Iterator[tuple[int, bytes]]:
        """The lines from here, with their numbers; `number` of them are behind."""
        longest = _LONGEST_LINE_MIB << 20
        while line := stream.readline(longest + 1):
            number += 1
            if len(line) > longest:
                raise InvalidRequest(
                    f"{self._place} line {number} is longer than {_LONGEST_LINE_MIB} MiB", code="bad_record"
                )
            yield number, line

    def _skip(self, stream: IO[bytes], number: int, offset: int) -> None:
        """Go on after what is behind; gzip is unzipped for it, standard input and pipes are read."""
        if self.path != STANDARD and stream.seekable():
            stream.seek(offset - 1)
            found = len(stream.read(1)) == 1
        else:
            found = sum(1 for _ in zip(range(number), self._lines(stream, 0), strict=False)) == number
        if not found:
            raise ConfigurationError(
                f"{self._place} is shorter than what the run has read of it: start without --resume"
            )


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=lambda name: None)
