import re
from pathlib import Path

import click
import pytest
import typer.main

from tests.support.compose import (
    ROOT,
    filled_in,
    image_healthcheck,
    instructions,
    our_services,
    services,
    variables,
)
from worker.cli.demo import _Job
from worker.cli.main import app
from worker.embedded import Endpoints
from worker.settings import Settings, inherited_environment, load_settings, setting_names

GIVEN = {"VALKEY_PASSWORD": "open", "POSTGRES_PASSWORD": "sesame"}


def verb(words):
    command = typer.main.get_command(app)
    for word in words:
        if word.startswith("--"):
            assert any(word in parameter.opts for parameter in command.params), f"{words}: no option {word}"
            continue
        assert isinstance(command, click.Group) or hasattr(command, "commands"), f"{words}: nothing below {word}"
        command = command.commands.get(word)
        assert command is not None, f"signal-worker knows no {' '.join(words)}"
    return command


def test_every_service_runs_a_verb_of_the_command_line():
    assert {name: service["command"] for name, service in our_services().items()} == {
        "migrate": ["db", "migrate"],
        "publisher": ["publish-registry"],
        "worker": ["run"],
    }
    for service in our_services().values():
        assert not hasattr(verb(service["command"]), "commands")


def test_two_workers_run():
    assert services()["worker"]["deploy"]["replicas"] == 2


def test_every_variable_is_one_the_settings_know():
    for service in our_services().values():
        assert set(service["environment"]) <= setting_names()


def test_environment_of_services_makes_valid_settings(monkeypatch):
    for service in our_services().values():
        for name, value in service["environment"].items():
            monkeypatch.setenv(name, filled_in(value, GIVEN))

        settings = load_settings()

        assert settings.redis_url == "redis://default:open@valkey:6379/0"
        assert settings.database_url == "postgresql://signals:sesame@postgres:5432/signals"
        assert settings.default_as_of == "calendar"


def test_services_get_the_variables_of_the_demo():
    job = _Job(Settings(), Endpoints(redis_url="redis://", database_url="postgresql://"), Path("demo"), keep=True)
    inherited = inherited_environment()
    of_demo = {name for name, value in job.environment.items() if inherited.get(name) != value}

    for service in our_services().values():
        assert set(service["environment"]) - {"SIGNALS_HEALTH_PORT"} == of_demo


@pytest.mark.parametrize("name", sorted(services()))
def test_long_lived_services_say_whether_they_are_well(name):
    service = services()[name]
    check = service.get("healthcheck", {})

    if name == "migrate":
        assert check == {"disable": True}
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        # The worker's is the image's own.
        assert check.get("test") or (name == "worker" and image_healthcheck())


def test_services_wait_for_what_they_need():
    healthy, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}

    assert services()["migrate"]["depends_on"] == {"postgres": healthy}
    for name in ("publisher", "worker"):
        assert services()[name]["depends_on"] == {"valkey": healthy, "migrate": done}


def test_publisher_is_checked_by_a_verb_that_exists():
    kind, program, *words = services()["publisher"]["healthcheck"]["test"]

    assert (kind, program) == ("CMD", "signal-worker")
    assert not hasattr(verb(words), "commands")


def test_servers_listen_on_loopback_alone():
    for service in services().values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_servers_keep_what_they_took():
    (_, _, valkey) = services()["valkey"]["command"]

    assert re.search(r"--appendonly yes --appendfsync everysec --maxmemory-policy noeviction", valkey)
    # Below it, postgres:18 has a folder of its version; /data would be another, anonymous volume.
    assert services()["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_secrets_are_required_and_every_variable_is_in_the_example():
    example = (ROOT / "deploy" / ".env.example").read_text(encoding="utf-8")
    said = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", example, flags=re.MULTILINE))

    assert {name for name, default in variables().items() if default is None} == set(GIVEN)
    assert said == {name: default or "" for name, default in variables().items()}
    with pytest.raises(KeyError, match="VALKEY_PASSWORD"):
        filled_in(our_services()["worker"]["environment"]["REDIS_URL"], {})


def test_containers_can_neither_write_nor_gain_rights():
    for service in our_services().values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_workers_are_given_time_to_finish():
    default = Settings.model_fields["shutdown_timeout_seconds"].default

    assert int(services()["worker"]["stop_grace_period"].removesuffix("s")) > default


def test_image_runs_without_root_and_says_whether_it_lives():
    last_stage = instructions()[max(at for at, (name, _) in enumerate(instructions()) if name == "FROM") :]
    names = [name for name, _ in last_stage]

    user = dict(last_stage)["USER"].partition(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "HEALTHCHECK" in names
    assert "FROM" in [name for name, _ in instructions()][1:]


def test_image_copies_only_what_exists_and_is_let_in():
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in let_in or f"!{source}/" in let_in, source
