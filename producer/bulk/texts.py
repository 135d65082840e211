"""From a source's records to texts that can be sent, and to rejects with their reason."""

import logging
from collections.abc import Sequence
from itertools import islice

from producer.bulk.ends import Record, Spoilt
from producer.bulk.order import Order
from producer.bulk.rejects import Reject
from producer.errors import ConfigurationError, InvalidRequest, InvalidText
from producer.requests import clean_text
from producer.templates import TextTemplate, look_up

logger = logging.getLogger("headrace.producer")

FIRST_RECORDS = 100
_SHOWN_FIELDS = 20


class TextMaker:
    """Builds the text of each record by the template, as it will travel."""

    def __init__(self, order: Order, max_text_bytes: int) -> None:
        self.template = TextTemplate(order.template)
        self._max_text_bytes = max_text_bytes
        self._takes_damage = order.max_failures is not None

    def make(self, item: Record | Spoilt) -> str | Reject:
        """The text of a record, or why there is none.

        Raises:
            InvalidRequest: the source is damaged there, and the order does not say how many rows may fail.
        """
        if isinstance(item, Spoilt):
            if item.damaged and not self._takes_damage:
                advice = "mend it, or say with --max-failures how many rows may fail"
                raise InvalidRequest(f"{item.place} {item.reason}: {advice}", code="bad_record")
            return Reject(
                place=item.place, id=None, code="bad_record", reason=f"{item.place} {item.reason}", fields=None
            )
        try:
            return clean_text(self._text(item), self._max_text_bytes, what=f"{item.place}: its text")
        except InvalidRequest as error:
            return rejected(item, error.code, str(error))

    def _text(self, record: Record) -> object:
        field = self.template.sole_field
        value = self.template.render(record.fields) if field is None else look_up(record.fields, field)
        if value is None:
            raise InvalidRequest(f"{record.place} has no field {field!r}", code="bad_record")
        if not value and field is None:
            names = ", ".join(self.template.fields)
            raise InvalidText(f"{record.place} has no value in any of: {names}", code="empty_text")
        return value


def rejected(record: Record, code: str, reason: str) -> Reject:
    """A record that could not be embedded."""
    return Reject(place=record.place, id=record.id, code=code, reason=reason, fields=dict(record.fields))


def look_at_first(maker: TextMaker, sample: Sequence[Record | Spoilt], source: str) -> None:
    """Look through the first records of a source before anything is sent: fields that none has are misspelt.

    Raises:
        ConfigurationError: none has any of the template's fields. If some are there, it is a warning.
        InvalidRequest: the source is damaged there.
    """
    records = [item for item in sample if isinstance(item, Record)]
    for item in sample:
        if isinstance(item, Spoilt):
            maker.make(item)
    fields = maker.template.fields
    absent = [field for field in fields if all(look_up(record.fields, field) is None for record in records)]
    if not (records and absent):
        return
    lead = f"the first {len(sample)} records of {source} have" if len(sample) > 1 else f"{source} has"
    there = dict.fromkeys(name for record in records for name in record.fields)
    text = f"{lead} no field {', '.join(map(repr, absent))}; there are: {', '.join(islice(there, _SHOWN_FIELDS))}"
    if len(absent) == len(fields):
        raise ConfigurationError(f"{text} (--text, --field)")
    logger.warning("%s", text)
