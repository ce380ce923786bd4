"""The contracts as documents for people and other languages.

Owns: JSON Schema of every model and the AsyncAPI document of every stream, generated from the models.
Must not know: servers.
Invariant: the files in `contracts/schemas/` equal what this module generates; a test compares them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from contracts.control import ControlEvent, FleetEvent
from contracts.heartbeats import Heartbeat
from contracts.rejections import Rejection
from contracts.requests import SignalRequest
from contracts.signals import SignalVector
from contracts.streams import GROUP, StreamNames

MODELS: tuple[type[BaseModel], ...] = (SignalRequest, SignalVector, Rejection, ControlEvent, FleetEvent, Heartbeat)
_SCHEMAS = Path(__file__).with_name("schemas")


def documents() -> dict[str, str]:
    """Return file name to text of every document."""
    schemas = {f"{model.__name__}.json": _dump(_schema(model)) for model in MODELS}
    return schemas | {"asyncapi.json": _dump(_asyncapi())}


def write_documents(folder: Path = _SCHEMAS) -> list[Path]:
    """Write every document into the folder and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in documents().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | model.model_json_schema(mode="validation")


def _asyncapi() -> dict[str, Any]:
    _, definitions = models_json_schema(
        [(model, "validation") for model in MODELS], ref_template="#/components/schemas/{model}"
    )
    channels = dict(_channels())
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Signal worker",
            "version": "1",
            "description": "Streams of one namespace; every entry is flat text fields, nested values are JSON.",
        },
        "channels": channels,
        "operations": {
            name: {"action": channel["x-worker"], "channel": {"$ref": f"#/channels/{name}"}}
            for name, channel in channels.items()
        },
        "components": {"schemas": definitions["$defs"]},
    }


def _channels() -> Iterator[tuple[str, dict[str, Any]]]:
    names = StreamNames()
    rows: tuple[tuple[str, str, type[BaseModel], str, dict[str, str]], ...] = (
        ("requests", names.requests, SignalRequest, "receive", {"group": GROUP}),
        ("results", names.results, SignalVector, "send", {}),
        ("probes", names.probes, SignalVector, "send", {}),
        ("rejections", names.rejections, Rejection, "send", {}),
        ("shadow", names.shadow, SignalVector, "send", {}),
        ("control", names.control, ControlEvent, "receive", {}),
        ("events", names.events, FleetEvent, "send", {}),
    )
    for name, address, model, action, stream in rows:
        payload = {"$ref": f"#/components/schemas/{model.__name__}"}
        yield (
            name,
            {
                "address": address,
                "messages": {model.__name__: {"payload": payload}},
                "x-worker": action,
                "x-redis-stream": stream,
            },
        )


def _dump(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_documents()
