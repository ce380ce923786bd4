import pytest

from tests.parity.page import main


def test_bars_without_a_name_are_a_wrong_call(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--bars", "folder"])

    assert ended.value.code == 2
    assert "'folder' is not NAME=FOLDER" in capsys.readouterr().err


def test_bars_that_cannot_be_imported_end_with_a_sentence():
    with pytest.raises(SystemExit, match=r"/nowhere"):
        main(["--bars", "a=/nowhere"])
