"""docker-compose.yml and Dockerfile as data, so that tests can hold them against the code and run them without Docker.

Owns: reading both files, filling in `${…}` as Compose does for the forms used there.
Must not know: what a service is for.
Invariant: a required variable that is missing is an error, as it is for Compose.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]

_VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>[A-Z_]+)(?::(?P<form>[-?])(?P<rest>[^}]*))?\}")


def services() -> dict[str, dict[str, Any]]:
    """Return the services by name, `${…}` as written."""
    content = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = content["services"]
    return found


def our_services() -> dict[str, dict[str, Any]]:
    """Return the services that run this project's image."""
    return {name: service for name, service in services().items() if service["image"] == "signal-worker"}


def variables() -> dict[str, str | None]:
    """Return each `${NAME}` of the file with its default; None: it is required."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    return {found["name"]: found["rest"] if found["form"] == "-" else None for found in _VARIABLE.finditer(text)}


def filled_in(value: str, environment: Mapping[str, str]) -> str:
    """Return a value as Compose hands it to the container."""

    def fill(found: re.Match[str]) -> str:
        name = found["name"]
        if environment.get(name):
            return environment[name]
        if found["form"] == "-":
            return str(found["rest"])
        raise KeyError(name)

    return _VARIABLE.sub(fill, value).replace("$$", "$")


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def image_healthcheck() -> list[str]:
    """Return the command by which the image tells whether a container is alive."""
    (check,) = [rest for name, rest in instructions() if name == "HEALTHCHECK"]
    command: list[str] = json.loads(check[check.index("[") :])
    return command
