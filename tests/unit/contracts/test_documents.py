import json
from pathlib import Path

import jsonschema

import contracts
from contracts.codec import encode
from contracts.documents import documents
from contracts.requests import SignalRequest

SCHEMAS = Path(contracts.__file__).with_name("schemas")


def test_committed_documents_are_what_the_models_say():
    committed = {path.name: path.read_text(encoding="utf-8") for path in SCHEMAS.glob("*.json")}

    assert committed == documents()


def test_asyncapi_names_every_stream_with_its_direction():
    document = json.loads(documents()["asyncapi.json"])

    assert {channel["address"] for channel in document["channels"].values()} == {
        f"signals:{name}" for name in ("requests", "results", "probes", "rejections", "shadow", "control", "events")
    }
    assert document["operations"]["requests"]["action"] == "receive"
    assert document["operations"]["results"]["action"] == "send"


def test_request_schema_refuses_an_unknown_field():
    schema = json.loads(documents()["SignalRequest.json"])
    request = encode(SignalRequest(request_id="r", strategy="alpha_baseline"))
    validator = jsonschema.Draft202012Validator(schema)

    assert validator.is_valid(request)
    assert not validator.is_valid(request | {"symbol": "AAPL"})
