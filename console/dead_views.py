"""Dead letters for people and for programs: a table without texts, one letter in full, the outcome of a retry."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from console.views import clip, duration, plain, printable
from producer import DeadLetter, RetryReport
from producer.wire.messages import Row

_DIGEST_DIGITS = 12
_NAME_WIDTH = 60
_REASON_WIDTH = 120
_NUMBERS = {"died", "attempts", "rows", "bytes"}


def letters_table(letters: Iterable[DeadLetter], now_ms: int) -> Table:
    """A line for each letter, to be shown wide; of the texts only their size, and how the first one's digest begins."""
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "died", "code", "attempts", "lane", "rows", "bytes", "digest", "worker", "reason"):
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left", no_wrap=True)
    for letter in letters:
        rows = letter.job.rows if letter.job else ()
        table.add_row(
            letter.id,
            _age(letter.died_at_ms, now_ms),
            plain(clip(letter.code, _NAME_WIDTH)),
            str(letter.deliveries),
            letter.lane or "-",
            str(len(rows)) if rows else "-",
            str(letter.payload_bytes),
            f"{rows[0].digest.hex()[:_DIGEST_DIGITS]}…" if rows else "-",
            plain(clip(letter.worker, _NAME_WIDTH)),
            plain(clip(letter.reason, _REASON_WIDTH)),
        )
    return table


def letter_json(letter: DeadLetter, *, texts: bool) -> dict[str, Any]:
    """One letter for programs; the texts themselves only if they are asked for."""
    query = letter.job.header.query if letter.job else None
    told: dict[str, Any] = {
        "id": letter.id,
        "code": letter.code,
        "reason": letter.reason,
        "worker": letter.worker,
        "lane": letter.lane,
        "entry_id": letter.entry_id,
        "enqueued_at_ms": letter.enqueued_at_ms,
        "died_at_ms": letter.died_at_ms,
        "deliveries": letter.deliveries,
        "payload_bytes": letter.payload_bytes,
        "unreadable": letter.unreadable,
        "kind": letter.job.header.kind if letter.job else None,
        "query_bytes": None if query is None else len(query.encode()),
        "rows": [_row_json(row, texts=texts) for row in letter.job.rows] if letter.job else [],
    }
    return {**told, "query": query} if texts else told


def _row_json(row: Row, *, texts: bool) -> dict[str, Any]:
    told = {"digest": row.digest.hex(), "text_bytes": len(row.text.encode())}
    return {**told, "text": row.text} if texts else told


def letter_lines(letter: DeadLetter, now_ms: int) -> list[str]:
    """One letter in full. A text is one line, with what could move a terminal's cursor written as an escape."""
    attempts = "once" if letter.deliveries == 1 else f"{letter.deliveries} times"
    facts = {
        "letter": letter.id,
        "died": f"{_age(letter.died_at_ms, now_ms)} ago",
        "code": letter.code or "-",
        "reason": letter.reason or "-",
        "worker": letter.worker or "-",
        "entry": f"{letter.entry_id or '-'} on lane {letter.lane or '-'}, tried {attempts}",
        "enqueued": f"{_age(letter.enqueued_at_ms, now_ms)} ago",
        "size": f"{letter.payload_bytes} bytes",
        "retry": f"not possible: {letter.unreadable}" if letter.unreadable else "possible",
    }
    lines = [f"{name:<9} {printable(value)}" for name, value in facts.items()]
    if letter.job and letter.job.header.query is not None:
        lines += [f"query     {len(letter.job.header.query.encode())} bytes", f"  {printable(letter.job.header.query)}"]
    for number, row in enumerate(letter.job.rows if letter.job else ()):
        lines += [f"row {number:<5} {row.kind}, {len(row.text.encode())} bytes, digest {row.digest.hex()}"]
        lines += [f"  {printable(row.text)}"]
    return lines


def retry_line(report: RetryReport) -> str:
    """What was done."""
    line = f"{letters(report.retried)} put on the bulk lane again"
    if report.already_computed:
        line += f", {report.already_computed} deleted whose results are there"
    return line + (f", {report.unreadable} kept that cannot be retried" if report.unreadable else "")


def letters(count: int) -> str:
    """So many letters, in words."""
    return "1 dead letter" if count == 1 else f"{count} dead letters"


def _age(at_ms: int | None, now_ms: int) -> str:
    return "-" if at_ms is None else duration(max(0, now_ms - at_ms) / 1000)
