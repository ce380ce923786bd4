"""Between the fields of a stream entry and a model.

Owns: bounded decoding with errors that name the field; encoding to flat text.
Must not know: clients, streams, the meaning of the models.
Invariant: decoding raises `ContractError` and nothing else, whatever the bytes are.
"""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError

from contracts.errors import (
    ContractError,
    DuplicateSymbols,
    EmptySymbols,
    EntryTooLarge,
    MalformedAsOf,
    MalformedEntry,
    TooManySymbols,
    UnknownField,
    UnsupportedVersion,
)
from contracts.requests import SignalRequest

Model = TypeVar("Model", bound=BaseModel)
Pairs = Sequence[tuple[bytes, bytes]]

#: Largest entry a reader accepts by default, in bytes of names and values.
MAX_ENTRY_BYTES = 262_144
#: Longest value quoted in a refusal or kept in a rejection, in characters.
QUOTED = 200

_CODES: Mapping[str, type[ContractError]] = {
    "empty_symbols": EmptySymbols,
    "duplicate_symbols": DuplicateSymbols,
    "too_many_symbols": TooManySymbols,
    "malformed_as_of": MalformedAsOf,
    "extra_forbidden": UnknownField,
}


def encode(model: BaseModel) -> dict[str, str]:
    """Return the model as flat text fields; absent values are left out, nested ones are compact JSON."""
    dumped = model.model_dump(mode="json", exclude_none=True)
    return {name: _text(value) for name, value in dumped.items()}


def decode_request(
    pairs: Pairs, entry_id: str, *, max_bytes: int = MAX_ENTRY_BYTES, max_symbols: int = 5000
) -> SignalRequest:
    """Return the request in an entry's fields.

    Args:
        pairs: Field names and values in the order of the entry, duplicate names included.
        entry_id: The entry's id, which is the request id where none is given.
        max_bytes: Most bytes of names and values together.
        max_symbols: Most symbols.

    Raises:
        ContractError: The fields are no request; the class names the broken rule.
    """
    fields = _texts(pairs, max_bytes)
    if fields.get("v", "1") != "1":
        raise UnsupportedVersion(f"v is {_quoted(fields['v'])}, this reader speaks version 1")
    fields.setdefault("request_id", entry_id)
    symbols = fields.get("symbols", "").count(",") + 1
    if symbols > max_symbols:
        raise TooManySymbols(f"symbols has {symbols} symbols, at most {max_symbols} are allowed")
    return _validated(SignalRequest, fields, fields)


def decode(cls: type[Model], pairs: Pairs, *, max_bytes: int = 64 * MAX_ENTRY_BYTES) -> Model:
    """Return the model in an entry's fields; fields the model does not have are ignored.

    Raises:
        ContractError: The fields are no such model.
    """
    fields = _texts(pairs, max_bytes)
    nested = {name for name, field in cls.model_fields.items() if get_origin(field.annotation) in {tuple, dict}}
    values = {name: _json(name, text) if name in nested else text for name, text in fields.items()}
    return _validated(cls, values, fields)


def printable(pairs: Pairs) -> dict[str, str]:
    """Return the fields as text that can always be stored: bytes that are not UTF-8 escaped, long values cut."""
    return {_shown(name): _shown(value) for name, value in pairs[:64]}


def request_id_of(pairs: Pairs, entry_id: str) -> str:
    """Return the request id in an entry, or the entry id where it has none that is allowed."""
    ids = [value for name, value in pairs if name == b"request_id"]
    try:
        probe = SignalRequest(request_id=ids[0].decode("ascii"), strategy="probe") if len(ids) == 1 else None
    except ValueError:
        return entry_id
    return probe.request_id if probe else entry_id


def _validated(cls: type[Model], values: Mapping[str, Any], fields: Mapping[str, str]) -> Model:
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise _refusal(cls, fields, error) from error


def _refusal(cls: type[BaseModel], fields: Mapping[str, str], error: ValidationError) -> ContractError:
    first = next(iter(sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")))
    name = str(first["loc"][0]) if first["loc"] else "entry"
    refused = _CODES.get(first["type"], MalformedEntry)
    if refused is UnknownField:
        close = difflib.get_close_matches(name, cls.model_fields, n=1)
        return UnknownField(f"unknown field {_quoted(name)}" + (f"; did you mean {close[0]}?" if close else ""))
    if first["type"] == "missing":
        return MalformedEntry(f"{name} is missing")
    return refused(f"{name} was {_quoted(fields.get(name, ''))}: {first['msg']}")


def _texts(pairs: Pairs, max_bytes: int) -> dict[str, str]:
    size = sum(len(name) + len(value) for name, value in pairs)
    if size > max_bytes:
        raise EntryTooLarge(f"the entry has {size} bytes, at most {max_bytes} are allowed")
    texts: dict[str, str] = {}
    for name, value in pairs:
        field = _utf8(name, "a field name")
        if field in texts:
            raise MalformedEntry(f"{_quoted(field)} is given twice")
        texts[field] = _utf8(value, field)
    return texts


def _utf8(raw: bytes, what: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedEntry(f"{what} is not UTF-8: {_quoted(_shown(raw))}") from error


def _json(name: str, text: str) -> Any:  # noqa: ANN401 - JSON border: the model validates the value
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedEntry(f"{name} is not JSON: {_quoted(text)}") from error


def _text(value: Any) -> str:  # noqa: ANN401 - JSON border: a field may have any value
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _shown(raw: bytes) -> str:
    text = raw[: 4 * QUOTED].decode("utf-8", errors="backslashreplace").replace("\x00", "\\x00")
    return text if len(raw) <= QUOTED else f"{text[:QUOTED]}… ({len(raw)} bytes)"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= QUOTED else f"{text[:QUOTED]}…")


def pairs_of(fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return text fields as the byte pairs that a stream returns."""
    items = fields.items() if isinstance(fields, Mapping) else fields
    return [(name.encode(), value.encode()) for name, value in items]
