import json
from datetime import date

import pytest
from typer.testing import CliRunner

from contracts import GROUP, RejectionCode, StreamNames
from contracts.codec import QUOTED, decode_request, encode, printable, request_id_of
from strategies.market.calendar import SessionCalendar
from tests.support.market import make_panel
from tests.support.serving import Bench, make_active, open_client, put_hash
from tests.support.serving import Streams as ServedStreams
from tests.support.wire import make_rejection, make_vector
from worker.cli._common import ExitCode
from worker.cli.main import app
from worker.client.errors import RedriveRefused
from worker.operations.redrive import Filter, Rejections
from worker.serving.committer import Results
from worker.serving.pipeline import ServingRules
from worker.serving.request_stream import RequestStream
from worker.transport.scripts import CommitStatus

REQUEST = {"strategy": "alpha_baseline", "symbols": "AAPL,MSFT", "request_id": "r-1"}


@pytest.fixture
def names(namespace):
    return StreamNames(namespace)


@pytest.fixture
def streams(valkey_url, redis_client, names):
    made = Streams(open_client(valkey_url, "test"), redis_client, names)
    yield made
    made.commands.close()


@pytest.fixture
def cli(monkeypatch, valkey_url, namespace):
    """Calls a verb and returns its exit code and output; with `--json`, what it printed."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere")
    monkeypatch.setenv("COLUMNS", "300")

    def call(*words, code=0):
        done = CliRunner().invoke(app, [*words, "--namespace", namespace])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if "--json" in words else done.output

    return call


class Streams:
    """Requests that a worker rejects as a worker does it."""

    def __init__(self, commands, client, names):
        self.commands, self.client, self.names = commands, client, names
        self._results = Results(commands, names, "w", dedupe_seconds=3600)
        self._stream = RequestStream(commands, commands, names, "w", lease_ms=60_000)

    def add(self, fields):
        return self.client.xadd(self.names.requests, fields).decode()

    def commit_next(self, outcome_of):
        self._stream.ensure_group()
        (entry,) = self._stream.read(1, 10)
        assert self._results.publish(entry, outcome_of(entry)).status is CommitStatus.COMMITTED
        return entry

    def reject_next(self, code=RejectionCode.NO_ACTIVE_MODEL):
        return self.commit_next(
            lambda entry: make_rejection(
                request_id=request_id_of(entry.pairs, entry.id),
                entry_id=entry.id,
                code=code,
                reason="no version is active",
                fields=printable(entry.pairs),
            )
        )

    def rejected(self, fields, **options):
        self.add(fields)
        return self.reject_next(**options).id

    def answer_next(self):
        return self.commit_next(lambda entry: make_vector(request_id=request_id_of(entry.pairs, entry.id)))

    def requests(self):
        return self.client.xrange(self.names.requests)

    def rejections(self):
        return self.client.xlen(self.names.rejections)


def rejected_ids(rows):
    return [row["request_id"] for row in rows]


def test_rejections_are_listed_newest_first_with_filters(cli, streams):
    streams.rejected(REQUEST | {"request_id": "r-1"})
    streams.rejected(REQUEST | {"request_id": "r-2"}, code=RejectionCode.STALE_SNAPSHOT)
    streams.rejected(REQUEST | {"request_id": "r-3", "strategy": "other"})

    listed = ("rejections", "list", "--json")
    assert rejected_ids(cli(*listed)) == ["r-3", "r-2", "r-1"]
    assert rejected_ids(cli(*listed, "--limit", "1")) == ["r-3"]
    assert rejected_ids(cli(*listed, "--code", "stale_snapshot")) == ["r-2"]
    assert rejected_ids(cli(*listed, "--strategy", "other")) == ["r-3"]
    assert rejected_ids(cli(*listed, "--older-than", "1h")) == []
    assert rejected_ids(cli(*listed, "--newer-than", "1h")) == ["r-3", "r-2", "r-1"]


def test_age_is_measured_by_the_servers_clock(cli, redis_client, names):
    now = redis_client.time()[0] * 1000
    for request_id, hours in (("old", 50), ("young", 1)):
        fields = encode(make_rejection(request_id=request_id))
        redis_client.xadd(names.rejections, fields, id=f"{now - hours * 3_600_000}-0")

    assert rejected_ids(cli("rejections", "list", "--older-than", "2d", "--json")) == ["old"]
    assert rejected_ids(cli("rejections", "list", "--newer-than", "1.5h", "--json")) == ["young"]


def test_table_shows_what_was_sent_as_text(cli, streams):
    streams.rejected(REQUEST | {"strategy": "[red]alpha"})

    assert "[red]alpha" in cli("rejections", "list")


def test_entries_that_are_no_rejections_are_counted(cli, streams, redis_client, names):
    redis_client.xadd(names.rejections, {"garbage": b"\xff"})
    streams.rejected(REQUEST)

    assert "1 entries on the stream are no rejections" in cli("rejections", "list")


def test_more_rejections_than_a_page_are_all_found(streams, redis_client, names):
    pipe = redis_client.pipeline()
    for number in range(1203):
        pipe.xadd(names.rejections, encode(make_rejection(request_id=f"r-{number}")))
    pipe.execute()
    rejections = Rejections(streams.commands, names, remembered_seconds=60)

    for newest_first in (False, True):
        found = [one.rejection.request_id for one in rejections.found(Filter(), newest_first=newest_first)]
        expected = [f"r-{number}" for number in range(1203)]
        assert found == (expected[::-1] if newest_first else expected)


@pytest.mark.parametrize("by", ["request_id", "entry_id"])
def test_one_rejection_is_shown_by_either_id(cli, streams, redis_client, names, by):
    streams.rejected(REQUEST)
    entry = redis_client.xrange(names.rejections)[0][0].decode()

    shown = cli("rejections", "show", "r-1" if by == "request_id" else entry, "--json")

    assert shown["fields"] == REQUEST
    assert shown["can_be_put_back"] is True
    assert "no version is active" in cli("rejections", "show", "r-1")


def test_unknown_id_is_not_found(cli):
    assert "no rejection of r-9" in cli("rejections", "show", "r-9", code=3)


def test_request_put_back_is_answered_under_its_id(cli, streams, redis_client, names):
    streams.rejected(REQUEST)

    (row,) = cli("rejections", "redrive", "r-1", "--json")

    assert row["status"] == "redriven"
    assert streams.rejections() == 0
    assert redis_client.hget(names.request("r-1"), "redrives") == b"1"
    streams.answer_next()
    assert redis_client.hget(names.request("r-1"), "state") == b"done"
    assert redis_client.xlen(names.results) == 1


def test_putting_back_adds_no_field_to_the_request(cli, streams):
    streams.rejected(REQUEST)

    cli("rejections", "redrive", "r-1")

    first, second = (fields for _, fields in streams.requests())
    assert first == second


def test_request_without_an_id_keeps_that_of_its_entry(cli, streams):
    entry = streams.rejected({"strategy": "alpha_baseline"})

    cli("rejections", "redrive", entry)

    again, fields = streams.requests()[-1]
    assert decode_request(tuple(fields.items()), again.decode()).request_id == entry


def test_putting_back_twice_adds_one_request(streams, redis_client, names):
    streams.rejected(REQUEST)
    rejections = Rejections(streams.commands, names, remembered_seconds=60)
    found = rejections.find("r-1")

    first = rejections.redrive(found)
    # The second call may come long after, when nothing is remembered any more.
    second = rejections.redrive(found)
    redis_client.delete(names.request("r-1"))
    third = rejections.redrive(found)

    assert [first.status, second.status, third.status] == ["redriven", "already", "already"]
    assert second.entry_id == first.entry_id
    assert len(streams.requests()) == 2


def test_request_that_has_a_vector_is_not_put_back(cli, streams, redis_client, names):
    streams.rejected(REQUEST)
    put_hash(redis_client, names.request("r-1"), {"state": "done", "stream": names.results, "entry": "5-1"})

    entry = redis_client.xrange(names.rejections)[0][0].decode()
    (row,) = cli("rejections", "redrive", entry, "--json", code=1)

    assert (row["status"], row["detail"]) == ("answered", "it has a vector, entry 5-1")
    assert len(streams.requests()) == 1


def test_rejection_that_was_followed_by_another_is_not_put_back(cli, streams, redis_client, names):
    streams.rejected(REQUEST)
    old = redis_client.xrange(names.rejections)[0][0].decode()
    redis_client.delete(names.request("r-1"))
    streams.rejected(REQUEST)

    (row,) = cli("rejections", "redrive", old, "--json", code=1)

    assert row["status"] == "superseded"
    assert len(streams.requests()) == 2


def test_request_rejected_again_can_be_put_back_again(cli, streams, redis_client, names):
    streams.rejected(REQUEST)
    cli("rejections", "redrive", "r-1")
    streams.reject_next()

    (row,) = cli("rejections", "redrive", "r-1", "--json")

    assert row["status"] == "redriven"
    assert redis_client.hget(names.request("r-1"), "redrives") == b"2"
    assert len(streams.requests()) == 3


def test_more_than_one_is_only_put_back_when_asked_to(cli, streams):
    for number in range(3):
        streams.rejected(REQUEST | {"request_id": f"r-{number}"})

    said = cli("rejections", "redrive", "--code", "no_active_model")
    assert "3 would be put back; repeat with --yes" in said
    assert len(streams.requests()) == 3
    cli("rejections", "redrive", "r-0", "r-1")
    assert len(streams.requests()) == 3

    rows = cli("rejections", "redrive", "--code", "no_active_model", "--limit", "2", "--yes", "--json")

    assert [(row["request_id"], row["status"]) for row in rows] == [("r-0", "redriven"), ("r-1", "redriven")]
    assert streams.rejections() == 1


def test_ids_and_filters_together_are_refused(cli):
    assert "both given" in cli("rejections", "redrive", "r-1", "--code", "no_active_model", code=2)
    assert "must be one of" in cli("rejections", "purge", "--code", "no_such_code", code=2)
    assert "e.g. 90s or 2h" in cli("rejections", "list", "--older-than", "soon", code=2)


def test_trimmed_request_is_put_back_from_what_was_kept(cli, streams, redis_client, names):
    redis_client.xdel(names.requests, streams.rejected(REQUEST))

    cli("rejections", "redrive", "r-1")

    ((_, fields),) = streams.requests()
    assert {name.decode(): value.decode() for name, value in fields.items()} == REQUEST


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"symbols": ",".join(f"S{n}" for n in range(100))}, "keeps only the beginning of field symbols"),
        ({"symbols": b"\xff"}, "keeps field symbols with bytes escaped"),
        ({f"field{n}": "1" for n in range(70)}, "keeps only the first 64 fields"),
    ],
)
def test_trimmed_request_that_was_cut_is_refused(cli, streams, redis_client, names, fields, sentence):
    redis_client.xdel(names.requests, streams.rejected(REQUEST | fields))

    (row,) = cli("rejections", "redrive", "r-1", "--json", code=1)

    assert row["status"] == "refused"
    assert sentence in row["detail"]
    assert streams.requests() == []
    assert cli("rejections", "show", "r-1", "--json")["can_be_put_back"] is False


@pytest.mark.parametrize("size", [1, 199, 200, 201, 210, 600, 799, 800, 801, 804, 2000])
@pytest.mark.parametrize("letter", ["a", "é", "€", "😀", "a€"])
def test_trimmed_request_is_put_back_as_it_came_or_not(streams, redis_client, names, letter, size):
    for padding in ("", "x", "xy", "xyz"):
        value = padding + letter * (size // len(letter.encode()))
        redis_client.xdel(names.requests, streams.rejected(REQUEST | {"request_id": f"r{padding}", "note": value}))
        rejections = Rejections(streams.commands, names, remembered_seconds=60)
        (rejected,) = rejections.found(Filter(limit=1), newest_first=True)

        if len(value.encode()) > QUOTED:
            with pytest.raises(RedriveRefused, match="keeps only the beginning of field note"):
                rejections.request_of(rejected)
        else:
            assert dict(rejections.request_of(rejected))[b"note"] == value.encode()


@pytest.mark.parametrize("value", ["… (210 bytes)", "AAPL… (210 bytes)", f"{'€' * 60}… (210 bytes)"])
def test_value_that_only_looks_cut_is_put_back(streams, redis_client, names, value):
    redis_client.xdel(names.requests, streams.rejected(REQUEST | {"note": value}))
    rejections = Rejections(streams.commands, names, remembered_seconds=60)

    (rejected,) = rejections.found(Filter())

    assert dict(rejections.request_of(rejected))[b"note"] == value.encode()


def test_cut_request_is_put_back_whole_while_it_is_on_the_stream(cli, streams):
    fields = REQUEST | {"symbols": ",".join(f"S{n}" for n in range(100))}
    streams.rejected(fields)

    cli("rejections", "redrive", "r-1")

    assert streams.requests()[-1][1][b"symbols"] == fields["symbols"].encode()


def test_doubled_field_is_never_put_back_as_one(cli, streams, redis_client, names):
    redis_client.execute_command(
        "XADD", names.requests, "*", "strategy", "alpha_baseline", "symbols", "AAPL", "symbols", "MSFT"
    )
    entry = streams.reject_next(RejectionCode.MALFORMED_REQUEST).id

    cli("rejections", "redrive", entry, code=0)
    flat = streams.commands.execute_command("XRANGE", names.requests, f"({entry}", "+")[0][1]
    assert flat[:6] == [b"strategy", b"alpha_baseline", b"symbols", b"AAPL", b"symbols", b"MSFT"]

    streams.reject_next(RejectionCode.MALFORMED_REQUEST)
    redis_client.delete(names.requests)
    (row,) = cli("rejections", "redrive", entry, "--json", code=1)
    assert "does not keep what was malformed" in row["detail"]


def test_request_whose_own_id_was_refused_is_not_put_back(cli, streams):
    entry = streams.rejected(REQUEST | {"request_id": "no spaces allowed"}, code=RejectionCode.MALFORMED_REQUEST)

    (row,) = cli("rejections", "redrive", entry, "--json", code=1)

    assert "its own request_id field cannot be kept" in row["detail"]
    assert len(streams.requests()) == 1


def test_put_back_request_is_remembered_no_shorter_than_before(cli, streams, redis_client, names):
    streams.rejected(REQUEST)
    redis_client.pexpire(names.request("r-1"), 10**12)

    cli("rejections", "redrive", "r-1")

    assert redis_client.pttl(names.request("r-1")) > 10**11


def test_purge_deletes_what_matches_and_no_request(cli, streams, redis_client, names):
    for number in range(3):
        streams.rejected(REQUEST | {"request_id": f"r-{number}"})
    streams.rejected(REQUEST | {"request_id": "kept"}, code=RejectionCode.STALE_SNAPSHOT)

    assert "3 would be deleted" in cli("rejections", "purge", "--code", "no_active_model")
    assert streams.rejections() == 4
    done = cli("rejections", "purge", "--code", "no_active_model", "--yes", "--json")

    assert done == {"matched": 3, "deleted": 3, "by_code": {"no_active_model": 3}}
    assert streams.rejections() == 1
    assert len(streams.requests()) == 4
    assert redis_client.hget(names.request("r-1"), "state") == b"rejected"


def test_redriven_request_is_read_by_the_group(streams, redis_client, names):
    streams.rejected(REQUEST)
    rejections = Rejections(streams.commands, names, remembered_seconds=60)

    rejections.redrive(rejections.find("r-1"))

    assert redis_client.xpending(names.requests, GROUP)["pending"] == 0
    assert redis_client.xinfo_groups(names.requests)[0]["lag"] == 1


def test_worker_answers_what_it_had_rejected_once_it_can(cli, valkey_url, redis_client, names):
    panel = make_panel(("AAPL", "MSFT"), sessions=120, first=date(2012, 9, 5))
    calendar = SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1))
    bench = Bench(valkey_url, names, ServingRules(calendar=calendar))
    bench.serve(panel, [], known=["alpha_baseline"])
    redis_client.xadd(names.requests, REQUEST | {"as_of": "2013-02-01"})
    bench.run_once()
    assert cli("rejections", "show", "r-1", "--json")["code"] == "no_active_model"

    bench.serve(None, [make_active(("AAPL", "MSFT"))])
    cli("rejections", "redrive", "r-1")
    bench.run_once()

    streams = ServedStreams(valkey_url, names.namespace)
    assert [vector.request_id for vector in streams.results()] == ["r-1"]
    assert streams.rejections() == []
    assert streams.pending() == 0


def test_server_that_is_unavailable_ends_the_verb_with_one_sentence(cli, monkeypatch, free_port):
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port}")

    assert "signal-worker: ConnectionError" in cli("rejections", "list", code=ExitCode.UNAVAILABLE)
