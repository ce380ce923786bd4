from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from worker.errors import SettingsError
from worker.server_urls import _REGISTRY_OPTIONS, registry_url, stream_url, without_password
from worker.settings import load_settings
from worker.transport.client import connect

#: Part of every URL that a message must not show.
SECRET = "s3cr3t"  # noqa: S105 - it opens nothing


def options_of(url):
    return connect(url, "test").connection_pool.connection_kwargs


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("redis://localhost", "redis://localhost/0"),
        (" REDIS://localhost:6379/ ", "redis://localhost:6379/0"),
        ("valkey://h:1/2", "redis://h:1/2"),
        ("valkeys://h/1?ssl_ca_certs=/etc/ca.pem", "rediss://h/1?ssl_ca_certs=%2Fetc%2Fca.pem"),
        ("redis://h?db=3", "redis://h/3"),
        ("redis://h/3?db=3&socket_timeout=1&decode_responses=True", "redis://h/3"),
        ("redis://[::1]:7/0", "redis://[::1]:7/0"),
        ("unix:///run/v.sock", "unix:///run/v.sock?db=0"),
        ("unix://app:pw@/run/v.sock?db=2", "unix://app:pw@/run/v.sock?db=2"),
        ("redis://app:pa#ss@h:1/0", "redis://app:pa%23ss@h:1/0"),
        ("redis://:p@s/s?x@h:1/0", "redis://:p%40s%2Fs%3Fx@h:1/0"),
        ("redis://app:100%25@h", "redis://app:100%25@h/0"),
    ],
)
def test_stream_url_becomes_the_form_the_driver_reads(text, url):
    assert stream_url(text) == url
    assert stream_url(url) == url


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("localhost:6379", "no scheme"),
        (f"app:{SECRET}@localhost:6379", "no scheme"),
        ("", "no scheme"),
        (f"redis://app:{SECRET}@h:port/0", "a port that is no number"),
        (f"redis://app:{SECRET}@h:0/0", "a port that is no number"),
        (f"redis://app:{SECRET}@h:65536/0", "a port that is no number"),
        (f"redis://app:{SECRET}@/0", "no host"),
        (f"redis://app:{SECRET}@h/abc", "a database that is no number"),
        (f"redis://app:{SECRET}@h/-1", "a database that is no number"),
        (f"redis://app:{SECRET}@h/1/2", "a database that is no number"),
        (f"redis://app:{SECRET}@h/99999999999", "a database that is no number"),
        (f"redis://app:{SECRET}@h/1?db=2", "two databases"),
        (f"redis://app:{SECRET}@h/0#x", "#"),
        (f"redis://app:{SECRET}@h?sock_timeout=1", "unknown option sock_timeout"),
        (f"redis://app:{SECRET}@h?passwort={SECRET}", "did you mean password"),
        (f"redis://app:{SECRET}@h?ssl_ca_certs=x", "without TLS"),
        (f"redis://app:{SECRET}@h?db=1&db=1", "twice"),
        (f"redis+sentinel://app:{SECRET}@h:26379/mymaster", "name one server"),
        (f"redis-cluster://app:{SECRET}@h", "name one server"),
        (f"redis://app:{SECRET}@h1:1,h2:2/0", "port that is no number|several hosts"),
        (f"http://app:{SECRET}@h", "the scheme http, known are redis"),
        (f"redis://app:{SECRET}\n@h", "unprintable"),
        (f"redis://app:{SECRET} @h", "blank"),
        (f"redis://app:{SECRET}@[::1/0", "cannot be read"),
        ("unix://", "no path"),
        ("redis://" + "h" * 9000, "the limit is 8192"),
    ],
)
def test_unreadable_stream_url_is_one_sentence_without_password(text, sentence):
    with pytest.raises(SettingsError, match=sentence) as refused:
        stream_url(text)

    assert str(refused.value).startswith("REDIS_URL ")
    assert SECRET not in str(refused.value)
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("postgresql://ada:pw@h:5432/signals", {"user": "ada", "password": "pw", "host": "h", "dbname": "signals"}),
        ("postgres://h/signals", {"host": "h", "dbname": "signals"}),
        ("postgresql+psycopg://ada:p#w@h/signals", {"password": "p#w", "host": "h"}),
        ("postgresql+asyncpg://ada:p@w/x@h/signals?sslmode=require", {"password": "p@w/x", "sslmode": "require"}),
        ("postgresql://h1:1,h2:2/signals?target_session_attrs=read-write", {"host": "h1,h2", "port": "1,2"}),
        ("postgresql:///signals?host=/run/postgresql", {"dbname": "signals", "host": "/run/postgresql"}),
        ("postgresql://h/s?options=-c%20role%3Dsignal_reader", {"options": "-c role=signal_reader"}),
        ("host=h dbname=signals password='a b'", {"password": "a b"}),
    ],
)
def test_registry_url_means_to_libpq_what_was_written(text, parts):
    url = registry_url(text)

    assert parts.items() <= conninfo_to_dict(url).items()
    assert registry_url(url) == url


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"ada:{SECRET}@h/signals", "no scheme"),
        (f"mysql://ada:{SECRET}@h/signals", "the scheme mysql, known are postgresql"),
        (f"postgresql://ada:{SECRET}@h/signals?sslmod=require", "unknown option sslmod; did you mean sslmode"),
        (f"postgresql://ada:{SECRET}@h/signals#x", "#"),
    ],
)
def test_unreadable_registry_url_is_one_sentence_without_password(text, sentence):
    with pytest.raises(SettingsError, match=sentence) as refused:
        registry_url(text)

    assert SECRET not in str(refused.value)


def test_every_parameter_of_the_installed_libpq_is_known():
    # Kept out: debugging and OAuth switches, and what libpq reserves for its own tests.
    installed = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    unknown = {name for name in installed - _REGISTRY_OPTIONS if not name.startswith(("oauth_", "scram_", "ssl"))}

    assert unknown <= {"authtype", "tty", "servicefile", "sslkeylogfile"}


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp", "Cf", "Co", "Cn"]), min_size=1, max_size=12)
)
def test_any_password_reaches_both_drivers_unchanged(password):
    written = quote(password, safe="")

    assert options_of(f"redis://app:{written}@h/0")["password"] == password
    assert conninfo_to_dict(registry_url(f"postgresql://app:{written}@h/s"))["password"] == password


def test_options_of_ours_win_over_those_of_the_url():
    options = options_of(
        "redis://h/0?socket_timeout=1&decode_responses=True&protocol=3&client_name=x&max_connections=1"
    )

    assert (options["socket_timeout"], options["protocol"], options["client_name"]) == (5.0, 2, "test")
    assert not options.get("decode_responses")


@pytest.mark.parametrize("name", ["REDIS_URL", "DATABASE_URL"])
@pytest.mark.parametrize(
    "text", [f"nonsense://app:{SECRET}@h/0", f"app:{SECRET}@h:1", f"redis://app:{SECRET}@h:x/0?y=1"]
)
def test_settings_refuse_an_unreadable_url_without_showing_it(monkeypatch, name, text):
    monkeypatch.setenv(name, text)

    with pytest.raises(SettingsError, match=name) as refused:
        load_settings()

    assert SECRET not in str(refused.value)


def test_settings_show_no_password_in_their_representation(monkeypatch):
    monkeypatch.setenv("REDIS_URL", f"redis://app:{SECRET}@h:1/0")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://app:{SECRET}@h/s")

    settings = load_settings()

    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert settings.redis_url == f"redis://app:{SECRET}@h:1/0"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://app:{SECRET}@h/0", "redis://app:…@h/0"),
        (f"redis://:{SECRET}@h/0?ssl_password={SECRET}", "redis://:…@h/0?ssl_password=…"),
        (
            f"postgresql://a:p@{SECRET}@h/s?password={SECRET}&sslmode=require",
            "postgresql://a:…@h/s?password=…&sslmode=require",
        ),
        (f"host=h password={SECRET} dbname=s", "host=h password=… dbname=s"),
    ],
)
def test_password_is_hidden_wherever_a_url_carries_it(url, shown):
    assert without_password(url) == shown
