from tests.shape import measure, row

SOURCE = '''"""A module."""


class Kept:
    """Two methods."""

    def long(self):
        """Explain at length.

        Over lines that do not count.
        """
        one = _once()
        return one + _twice() + self._never_called

    def _method(self):
        return _twice()


def _once():
    return 1


def _twice():
    return 2
'''


def test_docstrings_do_not_count_and_helpers_are_counted_by_their_uses(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(SOURCE)

    shape = measure([file])

    assert shape.modules == (SOURCE.count("\n"),)
    assert sorted(shape.functions) == [2, 2, 2, 3]
    assert (shape.classes, shape.helpers, shape.used_once) == (1, 3, 1)


def test_row_names_every_number(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(SOURCE)

    assert row("here", measure([file])) == "| here | 1 | 24 | 24 / 24 | 2 / 3 / 3 | 33% of 3 | 41.7 |"
