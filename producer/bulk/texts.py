"""From a source's records to texts that can be sent, and to rejects with their reason."""

from producer.bulk.ends import Record, Spoilt
from producer.bulk.rejects import Reject
from producer.errors import InvalidRequest, InvalidText
from producer.requests import clean_text
from producer.templates import TextTemplate, look_up


class TextMaker:
    """Builds the text of each record by the template, as it will travel."""

    def __init__(self, template: TextTemplate, max_text_bytes: int) -> None:
        self.template = template
        self._max_text_bytes = max_text_bytes

    def make(self, item: Record | Spoilt) -> str | Reject:
        """The text of a record, or why there is none."""
        if isinstance(item, Spoilt):
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


def absent_fields(template: TextTemplate, sample: list[Record | Spoilt]) -> list[str]:
    """The template's fields that no record of a sample has: most likely misspelt."""
    records = [item for item in sample if isinstance(item, Record)]
    return [
        field
        for field in template.fields
        if records and all(look_up(record.fields, field) is None for record in records)
    ]
