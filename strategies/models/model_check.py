"""The child process that parses untrusted bytes first, so that a crash, a hang or a bomb never meets the worker.

Owns: limits of memory and time, what makes the bytes of a model acceptable, the verdict.
Must not know: bundles, feature sets, registries, what is in a table.
Invariant: the worker parses only bytes that a fresh process has parsed, walked and predicted with, as LightGBM dies by
SIGSEGV or loops for ever on some malformed texts, and a Parquet file of a few kilobytes may unpack to gigabytes. The
child first loads its libraries and reproduces a reference model: only then do its verdict, or a signal that ends it,
count against the bytes. Exec'd, never forked: OpenMP hangs after a fork.
"""

import json
import mmap
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from strategies.errors import BundleUnavailable, MalformedBundle, MalformedModel

if TYPE_CHECKING:
    import lightgbm

#: Computing time of the child; a model of 200 MB takes about 8 s of it.
CPU_SECONDS = 60
#: Waiting time, which a machine with other work to do stretches: a sound model must not fail for that.
TIMEOUT_SECONDS = 300.0
#: Address space of the child: libraries and their thread stacks take about 1 GiB of it before a model is read.
MEMORY_BYTES = 4 * 1024**3
#: Memory that one table may take while it is unpacked; those of our bundles take some megabytes.
TABLE_BYTES = 1024**3
#: Values with which every feature is probed; NaN follows the default direction of each split.
PROBES = (0.0, 1.0, -1.0, 1e30, -1e30, float("nan"))
#: The model that the child reproduces before it judges another, and its outputs for the probes, as `float.hex`.
REFERENCE_MODEL = Path(__file__).parent / "machine" / "model.txt"
REFERENCE_OUTPUTS = Path(__file__).parent / "machine" / "outputs.txt"

#: Without these an interpreter or a library does not start on some machines; nothing else, so no secret, is passed on.
_NEEDED_TO_START = re.compile(
    "PATH|HOME|LANG|LC_.*|TZ|TMPDIR|VIRTUAL_ENV|LD_.*|DYLD_.*|PYTHON(PATH|HOME|USERBASE|PLATLIBDIR|PYCACHEPREFIX)"
    "|PYTHON(DONTWRITEBYTECODE|NOUSERSITE|MALLOC)|GLIBC_TUNABLES|NIX_.*|CONDA_PREFIX|MALLOC_.*"
)
#: Signals by which the bytes themselves may end a process; any other one was sent, or is a limit of this machine.
_OF_THE_BYTES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT})
_UNPRINTABLE = re.compile(r"[^ -~\n]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """What the child found in the model."""

    num_trees: int
    num_features: int


def check_model_bytes(
    content: bytes,
    tables: Sequence[bytes] = (),
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    memory_bytes: int = MEMORY_BYTES,
) -> ModelSummary:
    """Parse the bytes of a LightGBM text model in a fresh child process under limits, and return its summary.

    Args:
        content: The model.
        tables: Parquet files that come with it, each of which is unpacked once.
        timeout_seconds: Longest wait for the child.
        memory_bytes: Largest address space of the child.

    Raises:
        MalformedBundle: A table unpacks to more than `TABLE_BYTES`, and it was that limit which stopped it.
        MalformedModel: The child, which had reproduced the reference model, refused the bytes or was killed by them.
        BundleUnavailable: The child does not work here, or ran out of time or memory, or was ended by somebody.
        OSError: This machine could not start it.
    """
    sizes = " ".join(str(len(each)) for each in (content, *tables))
    message = b"".join((f"{sizes}\n".encode(), content, *tables))
    child = _child(message, timeout_seconds, memory_bytes)
    if child.returncode < 0:
        # A library that gets no memory ends a process by the same signals as malformed bytes do.
        again = _child(message, timeout_seconds, 2 * memory_bytes) if -child.returncode in _OF_THE_BYTES else child
        if again.returncode == 0:
            _summary(again.stdout.partition(b"\n")[2], again, len(content))  # it may refuse what the first died of
        if -again.returncode not in _OF_THE_BYTES:
            raise BundleUnavailable(f"the process that checks models was ended: {_signal(child)}, {len(content)} bytes")
        raise MalformedModel(f"model of {len(content)} bytes killed the process that parsed it: {_signal(child)}")
    return _summary(child.stdout.partition(b"\n")[2], child, len(content))


def _child(content: bytes, timeout_seconds: float, memory_bytes: int) -> subprocess.CompletedProcess[bytes]:
    """Return a child that has reproduced the reference model, and how it ended.

    Raises:
        BundleUnavailable: It has not, or this machine was too busy to let it end.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__, str(memory_bytes), str(min(CPU_SECONDS, int(timeout_seconds) + 1))],
            input=content,
            capture_output=True,
            timeout=timeout_seconds,
            cwd=Path(__file__).parents[2],
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        # Computing time is limited apart, and less than this: what is over is the time that others took.
        raise BundleUnavailable(f"model of {len(content)} bytes did not parse within {timeout_seconds} s") from error
    first = child.stdout.partition(b"\n")[0]
    if first != _PROVEN:
        raise BundleUnavailable(f"the process that checks models does not work here: {_cause(child, first)}")
    return child


def probe(booster: "lightgbm.Booster") -> NDArray[np.float64]:
    """Return the booster's outputs where every feature has the value of a probe, `[probes]` or `[probes, outputs]`."""
    rows = np.repeat(np.array(PROBES)[:, None], booster.num_feature(), axis=1)
    return np.asarray(booster.predict(rows, num_threads=1))


def inspect_model(text: str) -> ModelSummary:
    """Parse, walk and probe a model in this process; only the child may call it with untrusted text.

    Raises:
        MalformedModel: The text is no LightGBM model, a tree is no tree, or a prediction is not finite.
    """
    booster = _parse(text)
    summary = ModelSummary(num_trees=booster.num_trees(), num_features=booster.num_feature())
    if summary.num_trees < 1:
        raise MalformedModel("the model has 0 trees, at least 1 is needed")
    check_trees(text, summary)
    predictions = probe(booster)
    if predictions.ndim != 1:
        # Also of a file that claims classes it has no trees for: LightGBM then leaves memory as it found it.
        raise MalformedModel(f"the model has {predictions.shape[1]} outputs a row, it must have 1")
    if not np.isfinite(predictions).all():
        raise MalformedModel(f"the model predicts {predictions[~np.isfinite(predictions)][0]}, it must be finite")
    return summary


def check_trees(text: str, summary: ModelSummary) -> None:
    """Refuse a tree whose nodes do not form one tree, which LightGBM would follow out of bounds or for ever.

    Raises:
        MalformedModel: Names the tree, and what is wrong with it.
    """
    text = text.replace("\r\n", "\n")
    if odd := _UNPRINTABLE.search(text):
        raise MalformedModel(f"the text holds the character {odd[0]!r}, of which it is not clear where it ends a value")
    head, *blocks = re.split(r"^Tree=", text, flags=re.MULTILINE)
    if len(blocks) != summary.num_trees:
        raise MalformedModel(f"the text holds {len(blocks)} trees, LightGBM read {summary.num_trees}")
    _check_sizes(head, blocks)
    for number, block in enumerate(blocks):
        # LightGBM reads a tree up to its first blank line; what follows it must not be taken for the tree.
        lines = [line.split("=", 1) for line in block.split("\n\n", 1)[0].splitlines() if "=" in line]
        fields = dict(lines)
        fault = "a line is there twice" if len(fields) < len(lines) else _tree_fault(fields, summary)
        if fault:
            raise MalformedModel(f"tree {number}: {fault}")


def _check_sizes(head: str, blocks: list[str]) -> None:
    # Where they are stated LightGBM jumps by them, and would read other trees than those that are checked here.
    for line in head.splitlines():
        if line.startswith("tree_sizes="):
            sizes = [int(size) for size in line.removeprefix("tree_sizes=").split()]
            actual = [len("Tree=") + len(block) for block in blocks]
            if sizes[:-1] != actual[:-1] or len(sizes) != len(actual):
                raise MalformedModel(f"tree_sizes are {sizes[:3]} and so on, the trees have {actual[:3]} characters")


def _tree_fault(fields: dict[str, str], summary: ModelSummary) -> str | None:
    leaves = int(fields["num_leaves"])
    values = _numbers(fields, "leaf_value")
    if len(values) != leaves or leaves < 1:
        return f"{leaves} leaves, but {len(values)} leaf values"
    if not np.isfinite(values).all():
        return f"leaf value {values[~np.isfinite(values)][0]}, it must be finite"
    if leaves == 1:
        return _linear_fault(fields, leaves, summary)
    names = ("left_child", "right_child", "split_feature")
    left, right, features = (_integers(fields, name) for name in names)
    if {len(left), len(right), len(features)} != {leaves - 1}:
        return f"{leaves} leaves, but {len(left)} and {len(right)} children of splits of {len(features)} features"
    children = np.stack([left, right])
    outside = features[(features < 0) | (features >= summary.num_features)]
    if len(outside):
        return f"splits feature {outside[0]} of {summary.num_features}"
    if sorted(children.ravel()) != [*range(-leaves, 0), *range(1, leaves - 1)]:
        return "a node is missing or has two parents"
    # LightGBM numbers a split when it makes it, so a child split always has the higher number: no cycle is left.
    parents = np.broadcast_to(np.arange(leaves - 1), children.shape)
    if (children[children >= 0] <= parents[children >= 0]).any():
        return "a node is its own ancestor"
    return _category_fault(fields, leaves - 1) or _linear_fault(fields, leaves, summary)


def _category_fault(fields: dict[str, str], splits: int) -> str | None:
    """Return why a categorical split would read beside its set of categories; its threshold is the set's number."""
    kinds, thresholds = _integers(fields, "decision_type"), _numbers(fields, "threshold")
    if len(thresholds) != splits or len(kinds) not in {0, splits}:
        return f"{splits} splits, but {len(thresholds)} thresholds and {len(kinds)} decision types"
    sets = int(fields.get("num_cat", 0))
    asked = thresholds[: len(kinds)][kinds & 1 == 1]
    outside = asked[~((asked >= 0) & (asked < sets))]
    if len(outside):
        return f"splits by set {outside[0]:.0f} of {sets} sets of categories"
    if sets == 0:
        return None
    bounds, words = _integers(fields, "cat_boundaries"), len(_numbers(fields, "cat_threshold"))
    ordered = len(bounds) == sets + 1 and bounds[0] == 0 and bounds[-1] == words and (np.diff(bounds) >= 0).all()
    return None if ordered else f"{sets} sets of categories, but bounds {bounds[:9].tolist()} of {words} words"


def _linear_fault(fields: dict[str, str], leaves: int, summary: ModelSummary) -> str | None:
    """Return why a leaf with a linear model would read beside its features."""
    if int(fields.get("is_linear", 0)) == 0:
        return None
    counts, features = (_integers(fields, name) for name in ("num_features", "leaf_features"))
    coefficients, constants = _numbers(fields, "leaf_coeff"), _numbers(fields, "leaf_const")
    if not (len(counts) == len(constants) == leaves and len(features) == len(coefficients) == counts.sum()):
        return f"{leaves} linear leaves, but {len(constants)} constants and {len(features)} features"
    outside = features[(features < 0) | (features >= summary.num_features)]
    if (counts < 0).any() or len(outside):
        return f"a linear leaf reads feature {outside[:1].tolist()} of {summary.num_features}"
    return None if np.isfinite([*coefficients, *constants]).all() else "a linear leaf is not finite"


def _numbers(fields: dict[str, str], name: str) -> NDArray[np.float64]:
    return np.array(fields.get(name, "").split(), dtype=np.float64)


def _integers(fields: dict[str, str], name: str) -> NDArray[np.int64]:
    return np.array(fields.get(name, "").split(), dtype=np.int64)


def _parse(text: str) -> "lightgbm.Booster":
    # Not at the head of the module: the child limits its memory before LightGBM is loaded.
    import lightgbm as lgb  # noqa: PLC0415

    try:
        return lgb.Booster(model_str=text)
    except (lgb.basic.LightGBMError, ValueError, TypeError) as error:
        if "bad_alloc" in str(error):
            raise MemoryError(str(error)) from error
        raise MalformedModel(f"LightGBM cannot read the model: {error}") from error


#: The child's first line once it has loaded its libraries and reproduced the reference model.
_PROVEN = b"proven"
#: Memory that the interpreter may take between two measurements of the address space.
_SPARE_BYTES = 16 * 1024**2


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if _NEEDED_TO_START.fullmatch(name)}  # noqa: TID251 - no settings
    # One thread: each more costs address space. Arrow's other allocators reserve a gibibyte of it before it is used.
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}


def _signal(child: subprocess.CompletedProcess[bytes]) -> str:
    return signal.Signals(-child.returncode).name


def _cause(child: subprocess.CompletedProcess[bytes], first: bytes) -> str:
    """Return why a child did not get as far as judging."""
    if child.returncode < 0:
        return f"it was ended by {_signal(child)}"
    last = child.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
    return (first.decode(errors="replace") or last[0])[:500]


def _summary(output: bytes, child: subprocess.CompletedProcess[bytes], size_bytes: int) -> ModelSummary:
    try:
        verdict = json.loads(output)
    except ValueError as error:
        # It left by itself, as for want of memory, which is no fault of the bytes.
        cause = _cause(child, b"")
        raise BundleUnavailable(f"the process that checks models ended over {size_bytes} bytes: {cause}") from error
    if "exhausted" in verdict:
        raise BundleUnavailable(f"a model of {size_bytes} bytes cannot be checked here: {verdict['exhausted']}")
    if "bomb" in verdict:
        raise MalformedBundle(verdict["bomb"])
    if "refused" in verdict:
        raise MalformedModel(verdict["refused"])
    return ModelSummary(**verdict)


def reproduce_reference() -> str:
    """Return why this process cannot judge a model; empty: it can."""
    outputs = [float(value).hex() for value in probe(_parse(REFERENCE_MODEL.read_text("ascii")))]
    stated = REFERENCE_OUTPUTS.read_text("ascii").split()
    different = [f"was {was}, stated {then}" for was, then in zip(outputs, stated, strict=True) if was != then]
    return f"the reference model comes out otherwise: {different[0]}" if different else ""


def main(memory_bytes: int, cpu_seconds: int) -> None:
    """Reproduce the reference model, then read a model and its tables from standard input; print what came of each."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # LightGBM prints to the C library's standard output, which is only for the verdict.
    verdict_fd = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # Optional parts of LightGBM, 1.1 of the 1.4 seconds that its import takes.
    for name in ("pandas", "sklearn", "dask", "matplotlib", "graphviz", "pyarrow", "cffi"):
        sys.modules[name] = None  # type: ignore[assignment]  # how Python marks a module as not importable
    fault = reproduce_reference()
    model_bytes, *table_bytes = [int(size) for size in sys.stdin.buffer.readline().split()]
    table_fault = _table_reader() if table_bytes else None
    os.write(verdict_fd, (fault.encode() or _PROVEN) + b"\n")
    if not fault:
        model, *tables = [sys.stdin.buffer.read(size) for size in (model_bytes, *table_bytes)]
        verdict = _model_verdict(model)
        if table_fault is not None and "num_trees" in verdict:
            verdict = next((found for table in tables if (found := table_fault(table))), verdict)
        os.write(verdict_fd, json.dumps(verdict).encode())


def _model_verdict(model: bytes) -> dict[str, object]:
    try:
        return asdict(inspect_model(model.decode("ascii")))
    except (MemoryError, OSError) as error:
        return {"exhausted": f"{type(error).__name__}: {error}"}
    except MalformedModel as error:
        return {"refused": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever the bytes make this code raise is their refusal
        return {"refused": f"{type(error).__name__}: {error}"}


def _table_reader() -> Callable[[bytes], dict[str, object]]:
    """Return the check of one table, all libraries of which are loaded: a library that is missing is no fault of bytes.

    The check returns why the table must not be unpacked in the worker; nothing where it may, or where it is no table,
    which the worker finds.
    """
    sys.modules.pop("pyarrow", None)  # hidden from LightGBM, which is loaded by now
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    def check(content: bytes) -> dict[str, object]:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = min(_address_space() + TABLE_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        except (MemoryError, pa.ArrowMemoryError) as error:
            if limit < hard and _is_granted(limit - _address_space()):
                return {"bomb": f"a table of {len(content)} bytes unpacks to more than {TABLE_BYTES} bytes"}
            return {"exhausted": f"no memory for a table of {len(content)} bytes: {error}"}
        except (pa.ArrowException, OSError):
            return {}
        return {}

    return check


def _address_space() -> int:
    """Return the bytes of address space that this process has taken."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()


def _is_granted(size_bytes: int) -> bool:
    """Return whether the system grants the memory that is left below the limit, so that only the limit refused more."""
    try:
        mmap.mmap(-1, max(size_bytes - _SPARE_BYTES, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (MemoryError, OSError):
        return False
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
