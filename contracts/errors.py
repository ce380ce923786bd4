"""Errors of the wire: entries that cannot become a model.

Owns: one class for each way in which an entry is refused before anything is computed.
Must not know: how a refusal is published, or its code.
Invariant: a message names the field, the value found (shortened) and the limit.
"""


class ContractError(Exception):
    """An entry that no reader can honestly turn into its model."""


class MalformedEntry(ContractError):
    """A field that is missing, not UTF-8, given twice, or not of its form."""


class UnknownField(ContractError):
    """A field that the contract does not have; refused, since a misspelt field would be a guess."""


class UnsupportedVersion(ContractError):
    """An entry of a contract version that this reader does not support."""


class EntryTooLarge(ContractError):
    """An entry larger than the reader accepts."""


class MalformedAsOf(ContractError):
    """An as-of that is neither a date nor an instant with a time zone."""


class EmptySymbols(ContractError):
    """A symbol list without a symbol, or with an empty place."""


class DuplicateSymbols(ContractError):
    """A symbol list that names a symbol twice, which would double its weight."""


class TooManySymbols(ContractError):
    """A symbol list longer than the reader accepts."""
