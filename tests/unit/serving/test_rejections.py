import inspect
from collections import Counter

import pytest

from contracts import RejectionCode
from contracts import errors as wire
from strategies import errors as strategy
from worker import errors as edge
from worker.serving.rejections import CODES, code_of

#: What the worker room's errors do instead of ending a request; one added there must be put here or into the map.
NO_END_OF_A_REQUEST = {
    edge.SettingsError,  # ends the start
    edge.GroupVanished,  # is waited out, as every outage
    edge.RegistryUnavailable,  # what serves goes on
    edge.UnknownVersion,  # the refusals are answers to operators
    edge.VersionExists,
    edge.InvalidRegistration,
    edge.IllegalTransition,
    edge.ReasonMissing,
    edge.ImpossibleShare,
    edge.ImpossibleShare,
    edge.MigrationFailed,
    edge.RequestTimeout,  # the client's own
}


def leaves(room, root):
    own = [found for _, found in inspect.getmembers(room, inspect.isclass) if issubclass(found, root)]
    parents = {parent for found in own for parent in found.__mro__[1:]}
    return set(own) - parents


def test_every_error_that_ends_a_request_has_a_code():
    refused = leaves(wire, wire.ContractError) | leaves(strategy, strategy.StrategyError)
    failed = leaves(edge, edge.WorkerError)

    assert failed >= NO_END_OF_A_REQUEST
    assert set(CODES) == refused | (failed - NO_END_OF_A_REQUEST)


def test_every_code_has_one_error():
    assert Counter(CODES.values()) == Counter(RejectionCode)


@pytest.mark.parametrize("error", CODES, ids=lambda error: error.__name__)
def test_no_error_with_a_code_hides_a_subclass_without_one(error):
    assert error.__subclasses__() == []
    assert code_of(error.__new__(error)) is CODES[error]
