"""Models that others trained: from the bytes of a file to LightGBM's own text, and which column is which feature.

Owns: which forms of a file are read, which are refused and what to do about them, the match of columns and features.
Must not know: bars, bundles, MLflow's servers.
Invariant: nothing is unpickled or run; what is returned is LightGBM's text with LF line ends, and a column is a feature
only by its name or because a person stated so.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from strategies.errors import BundleError, BundleNotFound, FeatureSetMismatch, MalformedModel
from strategies.expressions.feature_sets import FeatureSet, define
from strategies.files import read_yaml, shown
from strategies.models.bundle_files import SIZE_LIMITS, read_limited
from strategies.models.manifest import MODEL_FILE
from strategies.suggestions import did_you_mean

ColumnsBy = Literal["name", "order", "mapping"]
#: MLflow's own description of a model in one of its flavours.
MLMODEL = "MLmodel"
BOOSTER = "lightgbm.basic.Booster"
#: Most bytes of a model's text.
MOST_BYTES = SIZE_LIMITS[MODEL_FILE]

_TRUSTED = (
    "it is never unpickled here, as that would run its code; where you trust it, run "
    "joblib.load(path).booster_.save_model('model.txt') and package that file"
)
#: How files of other forms begin, what they are, and what to do.
_OTHER_FORMS = (
    (b"\x80", f"a pickle of a scikit-learn wrapper or of a booster: {_TRUSTED}"),
    (b"\x78\x01", f"a compressed joblib file: {_TRUSTED}"),
    (b"\x78\x5e", f"a compressed joblib file: {_TRUSTED}"),
    (b"\x78\x9c", f"a compressed joblib file: {_TRUSTED}"),
    (b"\x78\xda", f"a compressed joblib file: {_TRUSTED}"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (b"\xff\xfe", "text in UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16: save it as UTF-8"),
    (b"{", "JSON, as dump_model() writes it, which cannot be read back: use save_model()"),
)
_GZIP, _BOM = b"\x1f\x8b", b"\xef\xbb\xbf"
_HEADER = re.compile(r"^feature_names=(?P<names>[^\n]*)$", re.MULTILINE)
_UNNAMED = re.compile(r"Column_\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which feature each column of a model is."""

    #: The feature set in the order of the model's columns.
    feature_set: FeatureSet
    #: By what it is known.
    by: ColumnsBy


def read_outside_model(path: Path) -> bytes:
    """Return the bytes of a model: of a file, or of the booster in a folder of MLflow's LightGBM flavour.

    Raises:
        BundleNotFound: There is nothing at the path, or the booster is missing.
        BundleError: No plain file, too large, or a flavour that keeps no text.
    """
    if not path.is_dir():
        return read_limited(path, MOST_BYTES)
    if not (path / MLMODEL).is_file():
        raise BundleNotFound(
            f"{path} is a folder without {MLMODEL}: give the file of a model, or MLflow's folder of one"
        )
    try:
        described = read_yaml(path / MLMODEL)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path / MLMODEL} cannot be read: {error}") from error
    return read_limited(path / booster_file(described, str(path)), MOST_BYTES)


def booster_file(described: object, where: str) -> str:
    """Return the name of the file with the booster's text, from MLflow's description of a model.

    Raises:
        BundleError: It describes no model of LightGBM, or a pickled one.
    """
    flavours = described.get("flavors") if isinstance(described, dict) else None
    flavour = flavours.get("lightgbm") if isinstance(flavours, dict) else None
    if not isinstance(flavour, dict):
        raise BundleError(f"{where} is no model of LightGBM, its flavours are {shown(flavours and sorted(flavours))}")
    name, kind = flavour.get("data"), flavour.get("model_class")
    if kind != BOOSTER:
        raise BundleError(
            f"{where} holds a pickled {shown(kind)}; only a {BOOSTER}, which is text, is taken: {_TRUSTED}"
        )
    if not isinstance(name, str) or Path(name).name != name:
        raise BundleError(f"{where}: {MLMODEL} names {shown(name)} as the model, which is no file beside it")
    return name


def model_text(content: bytes, where: str) -> str:
    """Return LightGBM's text in the bytes of a file: gzip undone, without byte order mark, with LF line ends.

    Raises:
        MalformedModel: Another form of a model, which is named with a remedy, or a damaged file.
    """
    if content.startswith(_GZIP):
        content = _unzipped(content, where)
    content = content.removeprefix(_BOM)
    for magic, what in _OTHER_FORMS:
        if content.startswith(magic):
            raise MalformedModel(f"{where} is {what}")
    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise MalformedModel(
            f"{where} is damaged or no text: byte {error.start} of {len(content)} is no UTF-8"
        ) from error
    if not text.startswith("tree\n"):
        first = text.split("\n", 1)[0]
        raise MalformedModel(f"{where} is no model in LightGBM's text: it begins with {shown(first)}, not with 'tree'")
    if "\nend of trees\n" not in f"{text}\n":
        raise MalformedModel(
            f"{where} is damaged: it ends after {len(text)} characters, before its line 'end of trees'"
        )
    if not _HEADER.search(text):
        raise MalformedModel(f"{where} is damaged: it has no line feature_names=")
    return text


def column_names(text: str) -> tuple[str, ...]:
    """Return the names of a model's columns, in order; text without them has none."""
    header = _HEADER.search(text)
    return tuple(header["names"].split(" ")) if header else ()


def match_columns(
    names: Sequence[str],
    features: FeatureSet,
    *,
    stated: Mapping[str, str] | Sequence[str] | None = None,
    in_order: bool = False,
) -> Columns:
    """Return which feature each column of a model is.

    Args:
        names: Of the model's columns, in order.
        features: Those that the model was trained on are among them.
        stated: Column to feature, or the features in the order of the columns; None: by name.
        in_order: Whether a person states that the columns are the features in their order.

    Raises:
        FeatureSetMismatch: A column is no feature, two are the same one, or columns without names have no mapping.
    """
    by: ColumnsBy = "name"
    wanted = tuple(names)
    if stated is not None:
        by, wanted = "mapping", _mapped(names, stated)
    elif in_order:
        if len(names) != len(features.names):
            raise FeatureSetMismatch(
                f"the model has {len(names)} columns, feature set {features.name} has {len(features.names)}: in order "
                "they must be as many; state which column is which feature"
            )
        by, wanted = "order", features.names
    elif unnamed := next((name for name in names if _UNNAMED.fullmatch(name)), None):
        raise FeatureSetMismatch(
            f"the model was trained without column names (its first is {unnamed}), so their order cannot be checked: "
            "state the features with --columns FILE, or --columns-in-order"
        )
    return Columns(feature_set=_reordered(features, wanted), by=by)


def renamed(text: str, names: Sequence[str]) -> str:
    """Return a model's text with other names of its columns; trees refer to columns by number and stay as they are."""
    header = "feature_names=" + " ".join(name.replace(" ", "_") for name in names)
    return _HEADER.sub(lambda _: header, text, count=1)


def read_columns(path: Path) -> Mapping[str, str] | Sequence[str]:
    """Return the mapping in a YAML file: column to feature, or the features in the order of the columns.

    Raises:
        FeatureSetMismatch: The file cannot be read, or is neither.
    """
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise FeatureSetMismatch(f"{path} cannot be read as YAML: {error}") from error
    values = [*content.keys(), *content.values()] if isinstance(content, dict) else content
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise FeatureSetMismatch(f"{path} is neither a mapping of columns to features nor a list of features")
    return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else values


def _mapped(names: Sequence[str], stated: Mapping[str, str] | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(stated, Mapping):
        if len(stated) != len(names):
            raise FeatureSetMismatch(f"the mapping lists {len(stated)} features, the model has {len(names)} columns")
        return tuple(stated)
    if absent := next((name for name in names if name not in stated), None):
        raise FeatureSetMismatch(f"the mapping has no feature for column {shown(absent)}")
    if unknown := next((name for name in stated if name not in set(names)), None):
        raise FeatureSetMismatch(f"the mapping names column {shown(unknown)}{did_you_mean(unknown, names)}")
    return tuple(stated[name] for name in names)


def _reordered(features: FeatureSet, wanted: Sequence[str]) -> FeatureSet:
    """Return the features of these names in this order; LightGBM writes an underscore for a blank."""
    known = {name.replace(" ", "_"): place for place, name in enumerate(features.names)}
    places: list[int] = []
    for number, name in enumerate(wanted):
        place = known.get(name.replace(" ", "_"))
        if place is None:
            hint = did_you_mean(name, features.names)
            raise FeatureSetMismatch(f"column {number} is {shown(name)}, no feature of {features.name}{hint}")
        if place in places:
            raise FeatureSetMismatch(f"columns {places.index(place)} and {number} are the same feature, {shown(name)}")
        places.append(place)
    if places == list(range(len(features.names))):
        return features
    columns = [(features.names[place], features.expressions[place]) for place in places]
    return define(features.name, columns, precision=features.precision, expanding=features.expanding)


def _unzipped(content: bytes, where: str) -> bytes:
    unzip = zlib.decompressobj(wbits=31)
    try:
        whole = unzip.decompress(content, MOST_BYTES + 1)
    except zlib.error as error:
        raise MalformedModel(f"{where} is a damaged gzip file: {error}") from error
    if len(whole) > MOST_BYTES:
        raise MalformedModel(f"{where} has more than {MOST_BYTES} bytes once gzip is undone")
    if not unzip.eof:
        raise MalformedModel(
            f"{where} is a damaged gzip file: it ends after {len(content)} bytes, before its data does"
        )
    return whole
