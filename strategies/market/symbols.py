"""Names of symbols: which text may name one, and the file that holds its bars.

Owns: the one rule of spelling that files, tables, manifests and requests are held to.
Must not know: files' content, bars, requests.
Invariant: a checked symbol has one file name that is safe on every file system, also one that folds case.
"""

import re
from urllib.parse import unquote

from strategies.errors import DataError

MAX_LENGTH = 32
#: Letters, digits and what vendors put between them; single blanks inside.
PATTERN = re.compile(r"(?=.{1,32}$)[A-Za-z0-9_^=][A-Za-z0-9.\-_^=&/:+]*(?: [A-Za-z0-9.\-_^=&/:+]+)*")
#: What a file's name spells as it is: upper case alone, so that `TpA` and `TPA` are two files everywhere.
_SAFE = re.compile(r"[a-z&/:+ ]")


def folded(text: str) -> str:
    """Return a symbol as it is compared: upper case where it has no capital letter, else as it is written."""
    return text.upper() if text.isascii() and text == text.lower() else text


def checked_symbol(text: str, where: str) -> str:
    """Return the symbol, in upper case where it was written in lower case alone: `brk-b` is BRK-B, `TpA` is TpA.

    Args:
        text: The name as it was found, such as `BF.B`, `M&M`, `BRK/B` or `^GSPC`.
        where: The place it was found in, for the error's sentence.

    Raises:
        DataError: The text is no symbol.
    """
    symbol = folded(text)
    if not (text.isascii() and PATTERN.fullmatch(symbol)):
        raise DataError(
            f"{where}: symbol was {text[:40]!r}, must be 1 to {MAX_LENGTH} of letters, digits, single blanks and "
            ". - _ ^ = & / : + without a leading . - & / : or +"
        )
    return symbol


def file_stem(symbol: str) -> str:
    """Return the name of a symbol's file, less its ending: what is not upper case or . - _ ^ = is a percent code."""
    return _SAFE.sub(lambda found: f"%{ord(found[0]):02X}", symbol)


def symbol_of_stem(stem: str, where: str) -> str:
    """Return the symbol that a file's name states; percent codes are read.

    Raises:
        DataError: It states none.
    """
    return checked_symbol(unquote(stem) if "%" in stem else stem, where)
