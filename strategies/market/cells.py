"""Cells of raw tables: text into numbers, as vendors write them.

Owns: thousands separators, decimal commas, signs of currencies, K, M and B; which texts mean no value.
Must not know: files, columns' meaning, rows.
Invariant: a text becomes the number it states, nothing, or an unreadable cell; never another number.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strategies.market.bars import FloatArray

#: Text that means "no value" in a number or a date; never in a symbol, where `NA` is a name.
BLANKS = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "NaT", "<NA>")
_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9}
_DECORATED = re.compile(
    r"[$€£¥₹]?\s*([+-]?)\s*[$€£¥₹]?\s*"
    r"([0-9][0-9.,'\u2019 \u00a0\u202f]*|[.,][0-9]+)(?:[eE]([+-]?[0-9]{1,3}))?\s*([KMB]?)"
)
_GROUPED = {
    ".": re.compile(
        r"[0-9]{1,3}(?:([,'\u2019 \u00a0\u202f])[0-9]{2,3}(?:\1[0-9]{2,3})*)?(?:\.[0-9]*)?|[0-9]*(?:\.[0-9]*)?"
    ),
    ",": re.compile(r"[0-9]{1,3}(?:([.'\u2019 \u00a0\u202f])[0-9]{3}(?:\1[0-9]{3})*)?(?:,[0-9]*)?|[0-9]*(?:,[0-9]*)?"),
}
_SEPARATORS = re.compile("[,.'\u2019 \u00a0\u202f]")


def read_numbers(column: pa.ChunkedArray, decimal: str) -> tuple[FloatArray, dict[int, str]]:
    """Return a column's numbers, NaN where there is none, and row to the text that is no number.

    Args:
        column: Texts or numbers.
        decimal: `.` or `,`.
    """
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numbers_as_stored(column)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
        return np.full(len(column), np.nan), dict.fromkeys(range(len(column)), f"{kind} value")
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    blank = pc.is_in(text, value_set=pa.array(BLANKS))
    text = pc.if_else(blank, pa.scalar(None, pa.string()), text)
    if decimal == ".":
        try:
            return _finite(_as_floats(text.cast(pa.float64())), text)
        except pa.ArrowException:
            pass  # at least one cell is no plain number; each is looked at below
    return _finite_texts(text.to_pylist(), decimal)


def _numbers_as_stored(column: pa.ChunkedArray) -> tuple[FloatArray, dict[int, str]]:
    values, bad = _finite(_as_floats(column), column)
    if pa.types.is_integer(column.type):
        # Beyond 2^53 a float would be another number.
        beyond = np.flatnonzero(np.abs(values) > 2.0**53)
        bad |= {int(row): str(column[int(row)].as_py()) for row in beyond}
        values = np.where(np.abs(values) > 2.0**53, np.nan, values)
    return values, bad


def decimal_sign(texts: Iterable[str], delimiter: str) -> str:
    """Return the decimal sign that a file's prices use: `.` or `,`.

    A sign that is followed by other than three digits, or that is the last of two, is the decimal one. Where all cells
    leave it open, a file whose cells are parted by semicolons uses commas.
    """
    votes = {".": 0, ",": 0}
    open_question = False
    for text in texts:
        points, commas = text.count("."), text.count(",")
        if points and commas:
            votes[max(".,", key=text.rfind)] += 1
        elif points == 1 or commas == 1:
            sign = "." if points else ","
            digits = len(text) - text.rfind(sign) - 1
            if digits == 3:  # noqa: PLR2004 - a thousand has three digits
                open_question |= sign == ","
            else:
                votes[sign] += 1
    if votes[","] != votes["."]:
        return max(votes, key=lambda sign: votes[sign])
    return "," if open_question and delimiter == ";" else "."


def _as_floats(column: pa.ChunkedArray) -> FloatArray:
    values: FloatArray = column.cast(pa.float64(), safe=False).to_numpy()
    return values


def _finite(values: FloatArray, column: pa.ChunkedArray) -> tuple[FloatArray, dict[int, str]]:
    infinite = np.flatnonzero(np.isinf(values))
    if not len(infinite):
        return values, {}
    values = values.copy()
    bad = {int(row): str(column[int(row)].as_py()) for row in infinite}
    values[infinite] = np.nan
    return values, bad


def _finite_texts(texts: Sequence[str | None], decimal: str) -> tuple[FloatArray, dict[int, str]]:
    values, bad = np.full(len(texts), np.nan), {}
    for row, text in enumerate(texts):
        if text is None:
            continue
        number = _number(text, decimal)
        if number is None or not np.isfinite(number):
            bad[row] = text
        else:
            values[row] = number
    return values, bad


def _number(text: str, decimal: str) -> float | None:
    negative = text.startswith("(") and text.endswith(")")
    found = _DECORATED.fullmatch(text[1:-1] if negative else text)
    if not found:
        return None
    sign, digits, exponent, unit = found.groups()
    digits = digits.strip()
    if not _GROUPED[decimal].fullmatch(digits):
        return None
    whole, _, fraction = digits.partition(decimal)
    plain = f"{_SEPARATORS.sub('', whole) or '0'}.{fraction or '0'}e{exponent or '0'}"
    number = float(plain) * _UNITS.get(unit, 1.0)
    return -number if negative or sign == "-" else number


def unreadable(cells: Mapping[str, Mapping[int, str]]) -> Mapping[int, tuple[str, str]]:
    """Return row to the first column, and its text, that could not be read."""
    found: dict[int, tuple[str, str]] = {}
    for column, rows in cells.items():
        for row, text in rows.items():
            found.setdefault(row, (column, text))
    return found
