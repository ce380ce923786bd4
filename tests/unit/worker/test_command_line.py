import shlex
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from tests.support.command_lines import WITHOUT_JSON, page, verbs
from tests.support.compose import ROOT
from worker.cli._common import _CODES, ExitCode, code_of
from worker.cli.main import app
from worker.errors import GroupVanished, RegistryUnavailable, RequestTimeout, StreamUnavailable

VERBS = {verb.name: verb for verb in verbs()}


def call(*words, **environment):
    return CliRunner().invoke(app, words, env=environment)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_prints_json_or_is_argued(name):
    verb = VERBS[name]

    assert ("--json" in verb.options) != (name in WITHOUT_JSON)
    assert bool(verb.json) == ("--json" in verb.options)


@pytest.mark.parametrize("name", VERBS)
def test_example_of_every_verb_can_be_typed(name):
    verb = VERBS[name]

    typed = shlex.split(verb.example)
    assert tuple(typed[1 : 1 + len(verb.words)]) == verb.words or "$(signal-worker local env)" in verb.example
    if typed[0] == "signal-worker":
        # Parses and checks every option and argument, and runs nothing.
        verb.command.make_context(name, typed[1 + len(verb.words) :])


@pytest.mark.parametrize("name", VERBS)
def test_help_of_every_verb_shows_its_example_whole(name):
    shown = call(*VERBS[name].words, "--help", COLUMNS="200").stdout

    assert VERBS[name].example in shown


def test_page_of_the_command_line_is_fresh():
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == page()


def test_version_is_printed():
    assert call("--version").stdout == f"signal-worker {version('signal-worker')}\n"


@pytest.mark.parametrize(
    ("words", "proposal"),
    [
        (("modles", "list"), "models"),
        (("models", "lst"), "list"),
        (("request", "--tiemout", "3"), "--timeout"),
        (("rejections", "list", "--code", "stale_symbl"), "did you mean stale_symbol"),
        (("features", "hash", "Alpha-158"), "alpha158"),
        (("train", "alpha_basline"), "did you mean alpha_baseline"),
    ],
)
def test_misspelt_word_gets_a_near_one_proposed(words, proposal):
    refused = call(*words)

    assert refused.exit_code in {ExitCode.USAGE, ExitCode.FAILED}
    assert proposal in refused.stderr


def test_unknown_setting_gets_no_far_name_proposed():
    refused = call("settings", SIGNALS_FOO="1")

    assert refused.exit_code == ExitCode.USAGE
    assert refused.stderr == "signal-worker: unknown setting SIGNALS_FOO\n"


def test_rejection_timeout_and_unreachable_server_have_codes_of_their_own():
    codes = {
        ExitCode.REJECTED,
        code_of(RequestTimeout("late")),
        code_of(StreamUnavailable("ConnectionError", "refused")),
        ExitCode.FAILED,
        ExitCode.USAGE,
        ExitCode.OK,
    }

    assert len(codes) == 6
    assert code_of(GroupVanished("NOGROUP", "")) == code_of(RegistryUnavailable("")) == ExitCode.UNAVAILABLE


def test_no_class_of_errors_is_hidden_by_a_wider_one_before_it():
    kinds = [kind for kind, _ in _CODES]

    assert not [(wide, kind) for at, kind in enumerate(kinds) for wide in kinds[:at] if issubclass(kind, wide)]


@pytest.mark.parametrize(
    "words",
    [
        ("request", "AAPL", "--wait"),
        ("requests", "pending"),
        ("rejections", "list"),
        ("control", "ping", "--wait"),
        ("archive",),
        ("models", "status"),
        ("replay", "1-1"),
        ("models", "list"),
        ("models", "compare", "alpha_baseline", "v1", "v2"),
        ("db", "status"),
        ("publish-registry", "--check"),
    ],
)
def test_unreachable_server_is_one_sentence_and_a_code_of_its_own(words, free_port, tmp_path):
    scheme = {"REDIS_URL": "redis", "DATABASE_URL": "postgresql"}
    nowhere = {name: f"{scheme[name]}://127.0.0.1:{free_port}/0" for name in scheme}

    ended = call(*words, **nowhere, SIGNALS_DATA_DIR=str(tmp_path), COLUMNS="80")

    assert ended.exit_code == ExitCode.UNAVAILABLE, ended.output
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("signal-worker: ")


@pytest.mark.parametrize("words", [("request", "AAPL"), ("models", "list"), ("control", "ping"), ("archive",)])
def test_servers_that_nobody_started_get_a_remedy(words, tmp_path):
    ended = call(*words, REDIS_URL="", DATABASE_URL="", SIGNALS_LOCAL_DIR=str(tmp_path))

    assert ended.exit_code == ExitCode.USAGE
    assert "`signal-worker local up`" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
