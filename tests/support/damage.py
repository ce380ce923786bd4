"""Damaged model files, and what becomes of them: `python -m tests.support.damage` for many.

Owns: cutting a good file short, changing one digit of it, the word for what the loading of each came to.
Must not know: how a model is checked.
Invariant: the same seed damages in the same places; a file is never the good one.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import typer

from strategies.errors import BundleError, DigestMismatch, GoldenSampleMismatch
from strategies.models.bundle_store import load_bundle
from tests.support.models import change_file, forge_file, make_bundle


def truncations(content: bytes, count: int) -> Iterator[bytes]:
    """Yield the file cut short at places spread over its whole length."""
    yield from (content[: len(content) * number // (count + 1)] for number in range(1, count + 1))


def one_digit_changes(content: bytes, count: int, *, seed: int = 0) -> Iterator[bytes]:
    """Yield the file with another digit in one place."""
    digits = np.flatnonzero(np.isin(np.frombuffer(content, dtype=np.uint8), list(b"0123456789")))
    random = np.random.default_rng(seed)
    for at in random.choice(digits, count, replace=False):
        changed = bytearray(content)
        changed[at] = ord("0") + (changed[at] - ord("0") + int(random.integers(1, 10))) % 10
        yield bytes(changed)


def fate(bundle: Path, content: bytes, *, forged: bool) -> str:
    """Put a damaged model into a bundle, load it as a worker does, and say what came of it.

    Args:
        bundle: A good bundle, or one damaged before.
        content: Of its model.
        forged: Whether the manifest states the digest of what is there now.
    """
    (forge_file if forged else change_file)(bundle, "model.txt", content)
    try:
        return "loads" if load_bundle(bundle).proven else "unproven"
    except DigestMismatch:
        return "refused by its digest"
    except GoldenSampleMismatch:
        return "refused by the golden sample"
    except BundleError as error:
        return _of_the_child(str(error))


def _of_the_child(reason: str) -> str:
    if "killed the process that parsed it" in reason or "the process that checks models ended over" in reason:
        return "killed the child"
    ended = "did not parse within" in reason or "was ended" in reason
    return "hung, the child was ended" if ended else "refused by the child"


def main(truncated: int = 39, changed: int = 40, seed: int = 0) -> None:
    """Count the fates of many damaged files whose digests were forged."""
    with TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder))
        good = (bundle / "model.txt").read_bytes()
        kinds = {"truncations": truncations(good, truncated), "changes": one_digit_changes(good, changed, seed=seed)}
        for kind, contents in kinds.items():
            counted = Counter(fate(bundle, content, forged=True) for content in contents)
            typer.echo(f"{kind}: {dict(counted)}")


if __name__ == "__main__":
    typer.run(main)
