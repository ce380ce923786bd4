import numpy as np
import pyarrow as pa
import pytest

from strategies.market.cells import decimal_sign, read_numbers


def read(texts, decimal="."):
    values, bad = read_numbers(pa.chunked_array([pa.array(texts)]), decimal)
    return [None if np.isnan(value) else value for value in values.tolist()], bad


@pytest.mark.parametrize(
    ("text", "decimal", "number"),
    [
        ("1,234.5", ".", 1234.5),
        ("12,34,567.25", ".", 1234567.25),
        ("1'234.5", ".", 1234.5),
        ("1.234,5", ",", 1234.5),
        ("1 234,5", ",", 1234.5),
        ("1234,5", ",", 1234.5),
        ("12.345", ",", 12345.0),
        ("$1,234.50", ".", 1234.5),
        ("45.2M", ".", 45_200_000.0),
        ("1.3B", ".", 1.3e9),
        ("120K", ".", 120_000.0),
        ("(5.5)", ".", -5.5),
        ("-5.5", ".", -5.5),
        ("1.5e3", ".", 1500.0),
        (" 7 ", ".", 7.0),
        (".5", ".", 0.5),
    ],
)
def test_numbers_of_vendors_are_read(text, decimal, number):
    assert read([text], decimal) == ([number], {})


@pytest.mark.parametrize(
    "text", ["-", "--", "cheap", "1.2.3", "1,5", "0x10", "inf", "1e999", "5%", "1 2 3", "٣", "1,23,4"]
)
def test_what_is_no_number_is_named_and_never_another_number(text):
    assert read([text, "2"]) == ([None, 2.0], {0: text})


@pytest.mark.parametrize("text", ["", "NA", "NaN", "null", "None", None, "  "])
def test_texts_that_mean_nothing_are_nothing(text):
    assert read([text, "1"]) == ([None, 1.0], {})


@pytest.mark.parametrize(
    ("texts", "delimiter", "sign"),
    [
        (["1.5", "2.25"], ",", "."),
        (["1,5", "2,25"], ";", ","),
        (["1.234,56"], ";", ","),
        (["1,234.56"], ",", "."),
        (["1,234", "2,345"], ";", ","),
        (["1,234", "2,345"], ",", "."),
        (["1.234", "2.345"], ";", "."),
        (["12", "13"], ";", "."),
    ],
)
def test_decimal_sign_is_that_of_the_whole_file(texts, delimiter, sign):
    assert decimal_sign(texts, delimiter) == sign


def test_whole_numbers_that_a_float_cannot_hold_are_named():
    values, bad = read_numbers(pa.chunked_array([pa.array([2**62 + 1, 5], pa.int64())]), ".")

    assert (np.isnan(values[0]), values[1]) == (True, 5.0)
    assert bad == {0: str(2**62 + 1)}
