import re

import pytest

from worker.cli._tables import Column, print_line, print_rows, print_table, right

COLUMNS = ["strategy", *right("PSI"), Column("reason", text=True)]
LONG = "a sentence of many words that no terminal of eighty columns shows beside anything else in a line"
ROWS = [("alpha_baseline", "0.012", LONG), ("b", None, "short")]


@pytest.fixture
def terminal(monkeypatch):
    """Make stdout a terminal of so many columns."""

    def sized(width):
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(width))

    return sized


def printed(capsys):
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


def test_row_in_a_pipe_is_one_line_at_full_width(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")

    print_table(COLUMNS, ROWS, title="found")

    title, head, first, second = printed(capsys)
    assert (title, head.split()) == ("found", ["strategy", "PSI", "reason"])
    assert first == f"alpha_baseline  0.012  {LONG}"
    assert second == "b                   -  short"


def test_free_text_wraps_on_a_terminal_and_nothing_is_cut(capsys, terminal):
    terminal(80)

    print_table(COLUMNS, ROWS)

    lines = printed(capsys)
    assert max(map(len, lines)) <= 80
    assert "alpha_baseline  0.012  a sentence" in lines[1]
    assert " ".join(" ".join(line[23:].split()) for line in lines[1:-1]).strip() == LONG


@pytest.mark.parametrize("width", [20, 40, 80])
def test_rows_that_do_not_fit_become_blocks(capsys, terminal, width):
    terminal(width)
    wide = [f"column_{number}" for number in range(12)]
    cells = [[f"figure-{row}-{number}" for number in range(12)] for row in range(2)]

    print_table(wide, cells)

    text = "\n".join(printed(capsys))
    assert all(cell in text.replace("\n", "") for row in cells for cell in row) or width == 20
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_what_producers_sent_cannot_steer_the_terminal(capsys, terminal):
    terminal(80)

    print_table(["id"], [["\x1b[2Jgone\r\n[bold]not markup[/bold]"]])
    print_line("\x1b]0;title\x07")

    shown = printed(capsys)
    assert shown[1] == r"\x1b[2Jgone\r\n[bold]not markup[/bold]"
    assert shown[2] == r"\x1b]0;title\x07"


def test_wide_letters_keep_columns_in_line(capsys):
    print_table(["name", "x"], [["日本", "1"], ["ab", "2"]])

    assert printed(capsys)[1:] == ["日本  1", "ab    2"]


def test_very_many_rows_are_counted(capsys):
    print_rows([{"request_id": str(number)} for number in range(60)], "found")

    lines = printed(capsys)
    assert len(lines) == 2 + 50 + 1
    assert lines[-1] == "and 10 more; --json has all"


def test_no_rows_are_one_line(capsys):
    print_rows([], "found")

    assert printed(capsys) == ["found: none"]
