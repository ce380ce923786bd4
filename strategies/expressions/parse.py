"""The grammar of Qlib expressions: text to syntax tree, without evaluating anything.

Owns: tokens, precedence (Python's, since Qlib lets Python evaluate its expressions), the limits on hostile text.
Must not know: which operators exist, what a field is.
Invariant: any text becomes a tree or an `ExpressionError` that names the position; nothing is ever executed.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from strategies.errors import ExpressionError

#: Limits on one expression: characters, tokens, nested parentheses, nested operators (n terms of a sum nest n - 1). Far
#: from Python's own limit of 1000 frames, of which a parenthesis takes ten and an operator two.
MAX_CHARACTERS, MAX_TOKENS, MAX_PARENTHESES, MAX_OPERATORS = 4096, 2048, 32, 128
#: Longest number, and how much of an expression an error shows, in characters.
MAX_NUMBER_CHARACTERS, SHOWN = 64, 160
#: Largest magnitude of a number, written or folded; float32 bars end at 3.4e38.
MAX_NUMBER, MAX_DIGITS = 1e300, 300

_TOKEN = re.compile(
    r"\s*(?:(?P<field>\$[A-Za-z_]\w*)|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<symbol>\*\*|[<>]=|==|!=|[-+*/<>&|(),]))",
    re.ASCII,
)
_COMPARISONS = {">": "Gt", ">=": "Ge", "<": "Lt", "<=": "Le", "==": "Eq", "!=": "Ne"}
#: Loosest first; comparisons bind looser than them all, signs and powers tighter.
_LEVELS = ({"|": "Or"}, {"&": "And"}, {"+": "Add", "-": "Sub"}, {"*": "Mul", "/": "Div"})


@dataclass(frozen=True, slots=True)
class Number:
    """A number; an integer stays one, since Qlib distinguishes `Ref($close, 1)` from `Ref($close, 1.0)`."""

    value: int | float
    position: int


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the bars, without its dollar sign."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Call:
    """An operator and its arguments; `a + b` is the call `Add(a, b)`."""

    name: str
    arguments: tuple["Tree", ...]
    position: int
    #: Calls from here down to the deepest.
    depth: int = 1


Tree = Number | Field | Call


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def parse(text: str, column: str = "expression") -> Tree:
    """Return the syntax tree of a Qlib expression, constants folded as Python would.

    Raises:
        ExpressionError: The text is no expression, or beyond the limits of length and depth; the message names the
            column, the expression and the position.
    """
    return _Parser(text, column).whole()


def refusal(column: str, text: str, position: int, reason: str) -> ExpressionError:
    """Return the error with its position."""
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    return ExpressionError(f"column {column}: {reason}, at character {position + 1} of {shown!r}")


class _Parser:
    def __init__(self, text: str, column: str) -> None:
        self.text, self.column = text, column
        if len(text) > MAX_CHARACTERS:
            raise self.error(0, f"the expression has {len(text)} characters, at most {MAX_CHARACTERS} are allowed")
        self.tokens = list(self.scan())
        self.at, self.depth = 0, 0

    def error(self, position: int, reason: str) -> ExpressionError:
        return refusal(self.column, self.text, position, reason)

    def scan(self) -> Iterator[_Token]:
        position, end, count = 0, len(self.text.rstrip()), 0
        while position < end:
            match = _TOKEN.match(self.text, position)
            if match is None or match.lastgroup is None:
                start = end - len(self.text[position:end].lstrip())
                raise self.error(start, f"unexpected {self.text[start]!r}")
            count += 1
            if count > MAX_TOKENS:
                raise self.error(position, f"more than {MAX_TOKENS} tokens")
            yield _Token(match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup))
            position = match.end()
        yield _Token("end", "", end)

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self, text: str) -> bool:
        matches = self.token.kind == "symbol" and self.token.text == text
        self.at += matches
        return matches

    def expect(self, text: str) -> None:
        if not self.take(text):
            was = repr(self.token.text) if self.token.text else "the end"
            raise self.error(self.token.position, f"{text!r} was expected, {was} was found")

    def whole(self) -> Tree:
        tree = self.comparison()
        if self.token.kind != "end":
            raise self.error(self.token.position, f"unexpected {self.token.text!r}")
        return tree

    def enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_PARENTHESES:
            raise self.error(self.token.position, f"nested deeper than {MAX_PARENTHESES} parentheses")

    def comparison(self) -> Tree:
        self.enter()
        left = self.binary(0)
        sign = self.token
        if sign.kind == "symbol" and sign.text in _COMPARISONS:
            self.at += 1
            left = self.call(_COMPARISONS[sign.text], left, self.binary(0), sign.position)
            if self.token.kind == "symbol" and self.token.text in _COMPARISONS:
                reason = "comparisons do not chain, and & and | bind tighter than they: use parentheses"
                raise self.error(self.token.position, reason)
        self.depth -= 1
        return left

    def binary(self, level: int) -> Tree:
        if level == len(_LEVELS):
            return self.signed()
        left = self.binary(level + 1)
        while self.token.kind == "symbol" and self.token.text in _LEVELS[level]:
            sign = self.token
            self.at += 1
            left = self.call(_LEVELS[level][sign.text], left, self.binary(level + 1), sign.position)
        return left

    def signed(self) -> Tree:
        negative, position = False, self.token.position
        while self.token.kind == "symbol" and self.token.text in "+-":
            negative ^= self.token.text == "-"
            self.at += 1
        tree = self.power()
        if not negative:
            return tree
        return self.call("Mul", tree, Number(-1, position), position)

    def power(self) -> Tree:
        left, sign = self.primary(), self.token
        if not self.take("**"):
            return left
        self.enter()
        right = self.signed()
        self.depth -= 1
        return self.call("Power", left, right, sign.position)

    def primary(self) -> Tree:
        token = self.token
        self.at += token.kind != "end"
        if token.kind == "number":
            return self.number(token)
        if token.kind == "field":
            return Field(token.text[1:], token.position)
        if token.kind == "name":
            self.expect("(")
            return self.made(token.text, self.arguments(), token.position)
        if token.kind == "symbol" and token.text == "(":
            tree = self.comparison()
            self.expect(")")
            return tree
        was = repr(token.text) if token.text else "the end"
        raise self.error(token.position, f"a value was expected, {was} was found")

    def arguments(self) -> tuple[Tree, ...]:
        if self.take(")"):
            return ()
        arguments = [self.comparison()]
        while self.take(","):
            arguments.append(self.comparison())
        self.expect(")")
        return tuple(arguments)

    def number(self, token: _Token) -> Number:
        if len(token.text) > MAX_NUMBER_CHARACTERS:
            raise self.error(token.position, f"a number has at most {MAX_NUMBER_CHARACTERS} characters")
        value = int(token.text) if token.text.isdigit() else float(token.text)
        return self.bounded(value, token.position)

    def bounded(self, value: float, position: int) -> Number:
        if not abs(value) <= MAX_NUMBER:
            raise self.error(position, f"a number lies beyond {MAX_NUMBER:g}")
        return Number(value, position)

    def made(self, name: str, arguments: tuple[Tree, ...], position: int) -> Call:
        depth = 1 + max((part.depth for part in arguments if isinstance(part, Call)), default=0)
        if depth > MAX_OPERATORS:
            raise self.error(position, f"nested deeper than {MAX_OPERATORS} operators")
        return Call(name, arguments, position, depth)

    def call(self, name: str, left: Tree, right: Tree, position: int) -> Tree:
        if not (isinstance(left, Number) and isinstance(right, Number)):
            return self.made(name, (left, right), position)
        value = _fold(name, left.value, right.value)
        if value is None:
            raise self.error(position, f"{name} of the numbers {left.value} and {right.value} has no value")
        return self.bounded(value, position)


def _fold(name: str, left: float, right: float) -> float | None:
    if name == "Add":
        return left + right
    if name == "Sub":
        return left - right
    if name == "Mul":
        return left * right
    if name == "Div":
        return left / right if right else None
    whole = isinstance(right, int) and right >= 0
    # Bounded before it is computed: 9 ** 9 ** 9 would never end.
    if name != "Power" or not (left > 0 or whole) or _digits(left, right) > MAX_DIGITS:
        return None
    power: float = left**right
    return power


def _digits(left: float, right: float) -> float:
    return abs(right) * abs(math.log10(abs(left))) if left else 0.0
