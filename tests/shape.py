"""The shape of the code: `python -m tests.shape [FOLDER...]` prints one row of a table for each folder.

Owns: counting modules, functions, helpers and classes by their syntax trees.
Must not know: what the code does, which numbers are good.
Invariant: docstrings and blank lines of a function count as its docstring does: not at all.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

Function = ast.FunctionDef | ast.AsyncFunctionDef

#: What is measured unless folders are named: all packages, then each.
DEFAULT = ("contracts strategies worker", "contracts", "strategies", "worker", "worker/cli", "tests")
HEADER = "| | modules | lines | modules med/max | functions med/p95/max | used-once helpers | classes per 1,000 lines |"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers of some folders."""

    #: Lines of each module.
    modules: tuple[int, ...]
    #: Lines of each function, its docstring left out.
    functions: tuple[int, ...]
    classes: int
    #: Private functions and methods, and those of them that are named once beside their definition.
    helpers: int
    used_once: int

    @property
    def lines(self) -> int:
        """Lines of all modules."""
        return sum(self.modules)


def measure(files: Iterable[Path]) -> Shape:
    """Return the shape of Python files; a helper's uses are counted within its own file."""
    modules: list[int] = []
    functions: list[int] = []
    classes = helpers = used_once = 0
    for file in files:
        source = file.read_text(encoding="utf-8")
        tree = ast.parse(source)
        modules.append(source.count("\n"))
        classes += sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
        functions += [_length(node) for node in ast.walk(tree) if isinstance(node, Function)]
        uses = Counter(_names(tree))
        private = [node.name for node in ast.walk(tree) if isinstance(node, Function) and _is_private(node.name)]
        helpers += len(private)
        used_once += sum(uses[name] == 1 for name in private)
    return Shape(
        modules=tuple(modules), functions=tuple(functions), classes=classes, helpers=helpers, used_once=used_once
    )


def row(title: str, shape: Shape) -> str:
    """Return a shape as a row of the table."""
    p95 = quantiles(shape.functions, n=20, method="inclusive")[-1] if len(shape.functions) > 1 else 0.0
    cells = (
        title,
        f"{len(shape.modules)}",
        f"{shape.lines:,}",
        f"{median(shape.modules):.0f} / {max(shape.modules)}",
        f"{median(shape.functions):.0f} / {p95:.0f} / {max(shape.functions)}",
        f"{shape.used_once / shape.helpers:.0%} of {shape.helpers}" if shape.helpers else "none",
        f"{1000 * shape.classes / shape.lines:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _length(function: Function) -> int:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _files(folders: Sequence[str]) -> list[Path]:
    return sorted(file for folder in folders for file in Path(folder).rglob("*.py"))


def main(folders: Sequence[str]) -> None:
    """Print the table, and how many lines of tests there are for each line of source."""
    print(HEADER)  # noqa: T201 - a script's answer
    print("| --- " * HEADER.count(" | ") + "| --- |")  # noqa: T201
    for title in folders or DEFAULT:
        print(row(title, measure(_files(title.split()))))  # noqa: T201
    if not folders:
        source, tests = (measure(_files(names)).lines for names in (DEFAULT[0].split(), ["tests"]))
        print(f"\ntests : source = {tests / source:.2f}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
