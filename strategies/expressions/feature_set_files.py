"""Feature sets of users, read from a YAML or TOML file.

Owns: the file's shape and what is refused in it.
Must not know: how expressions are computed.
Invariant: unknown content of a file is an error, never ignored; the order of columns is the file's.
"""

import re
import tomllib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TypeVar

import yaml

from strategies.errors import ExpressionError
from strategies.expressions.feature_sets import VWAP_STAND_INS, FeatureSet, Precision, VwapStandIn, define
from strategies.files import MAX_BYTES, UniqueKeys, first_line, is_long, shown
from strategies.suggestions import did_you_mean

_Choice = TypeVar("_Choice", bound=str)
_STAND_INS: dict[str, VwapStandIn] = {"none": "none", "typical_price": "typical_price", "close": "close"}
_PRECISIONS: dict[str, Precision] = {"qlib": "qlib", "float64": "float64"}
#: Parts of a dotted key of TOML: its parser takes memory by the square of them.
_MOST_PARTS = 16
_PART = r"""(?:[\w-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART}[ \t]*\.[ \t]*){{{_MOST_PARTS}}}")
_KEYS = frozenset({"name", "features", "vwap_stand_in", "precision", "expanding_sessions"})


def load_feature_set(path: Path) -> FeatureSet:
    """Return the feature set that a file defines.

    The file (`.yaml`, `.yml` or `.toml`) has `features`, a mapping of column name to Qlib expression or a list of
    `{name, expression}`; and, if wanted, `name` (by default the file's), `vwap_stand_in` (by default `none`, the bars
    have `$vwap`), `precision` and `expanding_sessions`, as in `define`.

    Raises:
        ExpressionError: The file cannot be read, has another shape, or a column is no expression.
    """
    content = _read(path)
    unknown = sorted(str(key) for key in set(content) - _KEYS)
    if unknown:
        known = f"known are {', '.join(sorted(_KEYS))}{did_you_mean(unknown[0], _KEYS)}"
        raise ExpressionError(f"{path}: unknown {', '.join(unknown)}; {known}")
    name = _text(path, "name", content.get("name", path.stem))
    stand_in = _choice(path, "vwap_stand_in", content.get("vwap_stand_in", "none"), _STAND_INS)
    precision = _choice(path, "precision", content.get("precision", "qlib"), _PRECISIONS)
    columns = [(column, text.replace("$vwap", VWAP_STAND_INS[stand_in])) for column, text in _columns(path, content)]
    try:
        return define(name, columns, precision=precision, expanding=_sessions(path, content.get("expanding_sessions")))
    except ExpressionError as error:
        raise ExpressionError(f"{path}: {error}") from error


def _read(path: Path) -> dict[Hashable, object]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExpressionError(f"{path}: cannot be read, {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ExpressionError(f"{path}: has {len(data)} bytes, at most {MAX_BYTES} are allowed")
    try:
        text = _plain_keys(data.decode(), path)
        # The loader below is PyYAML's safe one.
        content: object = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, UniqueKeys)  # noqa: S506
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ExpressionError(f"{path}: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ExpressionError(f"{path}: holds no table with `features`")
    return content


def _plain_keys(text: str, path: Path) -> str:
    """Return the text of a file whose keys are short enough to be parsed.

    Raises:
        ExpressionError: A dotted key of TOML is longer.
    """
    if path.suffix == ".toml" and (key := _LONG_KEY.search(text)):
        raise ExpressionError(f"{path}: a key of more than {_MOST_PARTS} parts, {key[0][:40]!r}")
    return text


def _columns(path: Path, content: Mapping[Hashable, object]) -> list[tuple[str, str]]:
    features = content.get("features")
    if isinstance(features, dict):
        listed = list(features.items())
    elif isinstance(features, list) and all(isinstance(part, dict) for part in features):
        listed = [
            (part.get("name"), part.get("expression")) for part in features if set(part) == {"name", "expression"}
        ]
        if len(listed) != len(features):
            raise ExpressionError(f"{path}: each of the list `features` has `name` and `expression`, and nothing else")
    else:
        raise ExpressionError(
            f"{path}: `features` is a mapping of name to expression, or a list of name and expression"
        )
    return [(_text(path, "a column's name", name), _text(path, f"column {name}", text)) for name, text in listed]


def _text(path: Path, what: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ExpressionError(f"{path}: {what} was {shown(value)}, it is a text")
    return value


def _choice(path: Path, what: str, value: object, known: Mapping[str, _Choice]) -> _Choice:
    if not isinstance(value, str) or value not in known:
        raise ExpressionError(
            f"{path}: {what} was {shown(value)}, it is one of {', '.join(known)}{did_you_mean(str(value), known)}"
        )
    return known[value]


def _sessions(path: Path, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and not is_long(value)):
        return value
    raise ExpressionError(f"{path}: expanding_sessions was {shown(value)}, it is a whole number of sessions")
