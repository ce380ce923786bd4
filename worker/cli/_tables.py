"""Tables on a terminal of any width, and in a pipe.

Owns: how rows are laid out.
Must not know: what the rows are about.
Invariant: no cell is ever cut. On a terminal, columns of free text wrap; where the others do not fit beside each other,
each row becomes a block of lines, one a column. In a pipe a row is one line of columns at their full width.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Most rows of a table that is shown beside an action.
ROWS_SHOWN = 50
#: Columns that free text needs beside the others; with fewer, rows become blocks.
_TEXT_WIDTH = 12
#: Columns between two columns of a table.
_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    #: Whether its cells are figures, written to the right.
    right: bool = False
    #: Whether its cells are free text, which wraps; all others are never broken.
    text: bool = False


def right(*names: str) -> tuple[Column, ...]:
    """Return columns of figures."""
    return tuple(Column(name, right=True) for name in names)


def print_table(columns: Sequence[Column | str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print rows on stdout.

    Args:
        columns: In the order of each row's cells; a plain name is a column that is never broken.
        rows: Cells; None is shown as `-`. Control characters are shown escaped, markup is not interpreted.
        title: Line above the table.
    """
    heads = [column if isinstance(column, Column) else Column(column) for column in columns]
    cells = [[_shown(cell) for cell in row] for row in rows]
    if title:
        typer.echo(title)
    console = _terminal()
    if console is None:
        _print_plain(heads, cells)
    elif _fits(heads, cells, console.width):
        console.print(_table(heads, cells))
    else:
        _print_blocks(heads, cells, console)


def print_rows(rows: Sequence[Mapping[str, object]], title: str, *, text: Sequence[str] = ()) -> None:
    """Print rows under their names, the first ones where there are very many; JSON has all.

    Args:
        rows: Each with the same names.
        title: Line above the table.
        text: Names of columns of free text.
    """
    if not rows:
        print_line(f"{title}: none")
        return
    columns = [Column(name.replace("_", " "), text=name in text) for name in rows[0]]
    print_table(columns, [list(row.values()) for row in rows[:ROWS_SHOWN]], title=title)
    if len(rows) > ROWS_SHOWN:
        print_line(f"and {len(rows) - ROWS_SHOWN} more; --json has all")


def print_line(text: str) -> None:
    """Print one line on stdout; a terminal wraps it, a pipe gets it whole."""
    typer.echo("".join(map(_escaped, text)))


def _terminal() -> "Console | None":
    """Return the terminal that stdout is, or None."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    return console if console.is_terminal else None


def _print_plain(heads: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    widths = _widths(heads, rows)
    for cells in ([head.name for head in heads], *rows):
        padded = (_padded(cell, width, head) for cell, width, head in zip(cells, widths, heads, strict=True))
        typer.echo((" " * _GAP).join(padded).rstrip())


def _padded(cell: str, width: int, head: Column) -> str:
    from rich.cells import cell_len

    padding = " " * (width - cell_len(cell))
    return padding + cell if head.right else cell + padding


def _widths(heads: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip([head.name for head in heads], *rows, strict=True)]


def _fits(heads: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> bool:
    needed = (
        min(natural, _TEXT_WIDTH) if head.text else natural
        for head, natural in zip(heads, _widths(heads, rows), strict=True)
    )
    return sum(needed) + _GAP * (len(heads) - 1) <= width


def _table(heads: Sequence[Column], rows: Sequence[Sequence[str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(
            Text(head.name), justify="right" if head.right else "left", no_wrap=not head.text, overflow="fold"
        )
    for cells in rows:
        table.add_row(*map(Text, cells))
    return table


def _print_blocks(heads: Sequence[Column], rows: Sequence[Sequence[str]], console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    for number, cells in enumerate(rows):
        if number:
            console.print()
        block = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_header=False)
        block.add_column(no_wrap=True, style="bold")
        block.add_column(overflow="fold")
        for head, cell in zip(heads, cells, strict=True):
            block.add_row(Text(head.name), Text(cell))
        console.print(block)


def _shown(cell: object) -> str:
    text = "-" if cell is None else str(cell)
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    """Return a character as it may be written to a terminal: what producers sent must not steer it."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()
