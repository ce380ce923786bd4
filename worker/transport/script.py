"""How a script that runs on the stream server is declared.

Owns: keys and arguments by name and in their order, from the fields of a class; the text and the digest of its file.
Must not know: which scripts there are, connections.
Invariant: a caller names every key and argument, so that none takes another's place.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from hashlib import sha1
from importlib import resources
from typing import Annotated, Any, ClassVar, Generic, TypeAlias, TypeVar, get_type_hints

Text: TypeAlias = str | bytes
Reply = TypeVar("Reply")

_KEY, _REST = "key", "rest"
#: A key of the script.
Key = Annotated[Text, _KEY]
#: Every argument from here on.
Rest = Annotated[Sequence[Text], _REST]


@dataclass(frozen=True, kw_only=True)
class Script(ABC, Generic[Reply]):
    """One call of a script: its keys, then its arguments, in the order of the fields."""

    #: The file's name without `.lua`.
    name: ClassVar[str]

    @staticmethod
    @abstractmethod
    def reply(raw: Any) -> Reply:  # noqa: ANN401 - replies have every shape
        """Return the server's reply as a value."""

    @classmethod
    @cache
    def declaration(cls) -> "Declaration":
        """Return the script's keys and arguments by name, in their order."""
        marks = get_type_hints(cls, include_extras=True)
        hints = {field.name: getattr(marks[field.name], "__metadata__", ()) for field in fields(cls)}
        return Declaration(
            keys=tuple(name for name, marks in hints.items() if _KEY in marks),
            arguments=tuple(name for name, marks in hints.items() if not marks),
            rest=next((name for name, marks in hints.items() if _REST in marks), None),
        )

    def keys(self) -> list[Text]:
        """Return KEYS."""
        return [getattr(self, name) for name in self.declaration().keys]

    def arguments(self) -> list[str | int | bytes]:
        """Return ARGV."""
        declared = self.declaration()
        arguments: list[str | int | bytes] = [getattr(self, name) for name in declared.arguments]
        return arguments + list(getattr(self, declared.rest)) if declared.rest else arguments

    @classmethod
    @cache
    def source(cls) -> str:
        """Return the script's text."""
        return resources.files("worker.transport").joinpath("lua", f"{cls.name}.lua").read_text(encoding="utf-8")

    @classmethod
    @cache
    def sha1(cls) -> str:
        """Return the name under which the server keeps the script."""
        return sha1(cls.source().encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """Names of a script's keys and arguments."""

    keys: tuple[str, ...]
    arguments: tuple[str, ...]
    #: Name of the arguments that follow those, if any number may.
    rest: str | None
