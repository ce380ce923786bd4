import dataclasses

import pytest

from strategies.errors import BundleError
from tests.support.serving import make_active
from worker.lifecycle.loader import require_calendar


def test_bundle_of_another_exchange_is_refused():
    bundle = make_active().bundle

    require_calendar(bundle, "XNYS")
    with pytest.raises(BundleError, match="calendar XHKG, this worker serves XNYS"):
        require_calendar(dataclasses.replace(bundle, calendar="XHKG"), "XNYS")
