"""What is printed where an extra is not installed."""

import sys

import pytest

from strategies.alpha_baseline.data_loader import T1DataProvider
from strategies.alpha_baseline.tracking import TrackingFailed, log_run
from strategies.errors import DataError
from strategies.models.bundle_store import load_bundle
from strategies.models.mlflow_models import MlflowAway, fetch_model
from worker.client.alpaca import AlpacaBroker, AlpacaOptions, AlpacaUnavailable


@pytest.fixture
def without(monkeypatch):
    """Makes imports of a module fail as if it were not installed, those of modules that import it again included."""

    def hide(*names):
        for name in names:
            for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
                monkeypatch.delitem(sys.modules, loaded)
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.mark.parametrize("name", ["mlflow", "sqlalchemy.exc"])
def test_run_is_not_logged_and_the_extra_is_named(without, two_versions, name):
    path = two_versions / "artifacts" / "models" / "alpha_baseline" / "v1"
    bundle = load_bundle(path)
    without(name)

    with pytest.raises(
        TrackingFailed, match=rf"{name}[a-z.]* is not installed: pip install 'signal-worker\[tracking\]'"
    ):
        log_run(bundle, path, None, tracking_uri=None)


def test_model_is_not_fetched_and_the_extra_is_named(without, tmp_path):
    without("mlflow")

    with pytest.raises(MlflowAway, match=r"mlflow[a-z.]* is not installed: pip install 'signal-worker\[tracking\]'"):
        fetch_model("runs:/abc/bundle", tmp_path, None)


def test_qlib_is_not_started_and_the_extra_is_named(without, two_versions):
    loader = T1DataProvider(two_versions / "data")
    without("qlib")

    with pytest.raises(DataError, match=r"qlib is not installed: pip install 'signal-worker\[research\]'"):
        loader.init_qlib()


def test_broker_is_not_made_and_the_extra_is_named(without):
    options = AlpacaOptions(key_id="key", secret_key="secret")  # noqa: S106 - none
    without("httpx")

    with pytest.raises(AlpacaUnavailable, match=r"httpx is not installed: pip install 'signal-worker\[alpaca\]'"):
        AlpacaBroker(options)
