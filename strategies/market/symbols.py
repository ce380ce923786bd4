"""Names of symbols: which text may name one.

Owns: the one pattern that files, tables and manifests are held to.
Must not know: files, bars, requests.
Invariant: a checked symbol is safe as a file name; it has no slash, no leading dot, and at most 16 characters.
"""

import re

from strategies.errors import DataError

PATTERN = re.compile(r"[A-Z0-9_^=][A-Z0-9.\-_^=]{0,15}")


def checked_symbol(text: str, where: str) -> str:
    """Return the symbol in upper case.

    Args:
        text: The name as it was found, such as `BF.B`, `brk-b` or `^GSPC`.
        where: The place it was found in, for the error's sentence.

    Raises:
        DataError: The text is no symbol.
    """
    symbol = text.upper()
    # ß.upper() is SS, another symbol's name.
    if not (text.isascii() and PATTERN.fullmatch(symbol)):
        raise DataError(
            f"{where}: symbol was {text[:40]!r}, must be 1 to 16 of A-Z 0-9 . - _ ^ = without a leading . or -"
        )
    return symbol
