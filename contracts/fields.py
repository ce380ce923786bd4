"""Types of single fields, shared by the models of the wire.

Owns: the text of a symbol list, a day, an instant and a digest on a stream, and their bounds.
Must not know: models, streams, which symbols or sessions exist.
Invariant: what is read back equals what was written; nothing is repaired but white space around list items.
"""

import re
from collections import Counter
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, Field, PlainSerializer, StringConstraints
from pydantic_core import PydanticCustomError

from contracts.streams import PARTITION

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INTEGER = re.compile(r"-?[0-9]{1,10}")


class Purpose(StrEnum):
    """What a request's vector is for."""

    #: To be traded: the vector goes to results, which gateways follow.
    TRADE = "trade"
    #: To be looked at: the vector goes to probes alone, and no gateway applies it.
    PROBE = "probe"


def _symbols(value: object) -> object:
    symbols = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
    if not isinstance(symbols, tuple | list):
        return symbols
    symbols = tuple(folded_symbol(symbol) for symbol in symbols)
    if not symbols or not all(symbols):
        raise PydanticCustomError("empty_symbols", "has an empty place where a symbol should stand, e.g. AAPL,MSFT")
    doubled = [str(symbol) for symbol, count in Counter(symbols).items() if count > 1]
    if doubled:
        raise PydanticCustomError(
            "duplicate_symbols", "names {symbol} more than once", {"symbol": repr(doubled[0][:40])[1:-1]}
        )
    return symbols


def folded_symbol(symbol: object) -> object:
    """Return a symbol as snapshots spell it: upper case where it has no capital letter, else as it is written."""
    if isinstance(symbol, str) and symbol.isascii() and symbol == symbol.lower():
        return symbol.upper()
    return symbol


def _as_of(value: object) -> object:
    if isinstance(value, datetime):
        return _zoned(value)
    if not isinstance(value, str):
        return value
    malformed = PydanticCustomError(
        "malformed_as_of", "is neither a date (2013-02-01) nor an instant with a time zone (2013-02-01T21:00:00Z)"
    )
    if not _DAY.match(value):
        raise malformed  # Python also reads 20130201 and 2013-W05-5
    try:
        if len(value) == len("2013-02-01"):
            return date.fromisoformat(value)
        instant = datetime.fromisoformat(value)
        offset = instant.astimezone(UTC) if instant.tzinfo else None
    except (ValueError, OverflowError) as error:
        raise malformed from error
    return offset or _zoned(instant)


def _zoned(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise PydanticCustomError("malformed_as_of", "is an instant without a time zone, so the session is a guess")
    return instant.astimezone(UTC)


def _count(value: object) -> object:
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise PydanticCustomError("count", "is no integer in plain digits, such as 10")
    return value


def _instant(value: object) -> object:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
            return value.astimezone(UTC) if value.tzinfo else value
        except (ValueError, OverflowError) as error:
            raise PydanticCustomError("instant", "is not an instant such as 2013-02-01T21:00:00Z") from error
    return value


def _spell(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _spell_as_of(as_of: date | datetime) -> str:
    return _spell(as_of) if isinstance(as_of, datetime) else as_of.isoformat()


#: `10` on the stream: a reader that took `1_0` or `3.0` would understand what no other does.
Count = Annotated[int, Field(ge=0, le=10_000), BeforeValidator(_count)]
#: Chosen by the producer, or the entry id of the request.
RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
#: A scheduler's or a person's name: `daily-rebalance`, `ops@desk`.
Producer = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
#: Of a request stream; empty: that of no partition.
Partition = Annotated[str, StringConstraints(pattern=PARTITION)]
Strategy = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]
#: A ticker as vendors write it: BRK.B, M&M, BRK/B, TpA; single blanks inside, no comma.
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.\-_^=&/:+]+( [A-Za-z0-9.\-_^=&/:+]+)*$", max_length=32)]
#: `AAPL,MSFT` on the stream.
Symbols = Annotated[tuple[Symbol, ...], BeforeValidator(_symbols), PlainSerializer(",".join, return_type=str)]
#: A day (`2013-02-01`) or an instant with a time zone (`2013-02-01T21:00:00Z`).
AsOf = Annotated[date | datetime, BeforeValidator(_as_of), PlainSerializer(_spell_as_of, return_type=str)]
#: UTC on the stream.
Instant = Annotated[AwareDatetime, BeforeValidator(_instant), PlainSerializer(_spell, return_type=str)]
#: SHA-256, hexadecimal.
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
#: W3C trace context, carried as it came.
TraceParent = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]
TraceState = Annotated[str, StringConstraints(max_length=512)]
#: One printable sentence.
Sentence = Annotated[str, StringConstraints(max_length=2000)]
