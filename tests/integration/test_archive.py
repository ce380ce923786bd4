import json
import os
import shutil
from datetime import UTC, datetime

import pytest
from pyarrow import parquet

from contracts import Rejection, SignalVector
from contracts.codec import decode, encode
from tests.support.published import command_line
from tests.support.serving import Streams
from tests.support.wire import make_rejection, make_vector
from worker.cli._common import ExitCode
from worker.embedded.files import take_lock
from worker.operations.archive import Archive, ArchiveUnusable, archive_stream

#: The last instant of one UTC day, and the first of the next.
MIDNIGHT = datetime(2024, 1, 3, tzinfo=UTC)
LAST_MS, FIRST_MS = int(MIDNIGHT.timestamp() * 1000) - 1, int(MIDNIGHT.timestamp() * 1000)


@pytest.fixture
def call(tmp_path, streams, valkey_url):
    return command_line(tmp_path, streams, valkey_url)


@pytest.fixture
def archive(tmp_path, streams):
    return Archive(tmp_path / "data", streams.names.results, SignalVector)


def publish(streams, request_id, entry_id, **changes):
    vector = make_vector(request_id=request_id, **changes)
    return streams.client.xadd(streams.names.results, encode(vector), id=entry_id).decode()


def kept(archive):
    return {day.isoformat(): archive.entry_ids(day) for day in archive.days()}


def test_entries_are_in_the_day_of_their_id(call, streams, archive, tmp_path):
    publish(streams, "late", f"{LAST_MS}-5")
    publish(streams, "early", f"{FIRST_MS}-0")
    streams.client.xadd(streams.names.rejections, encode(make_rejection()), id=f"{FIRST_MS}-1")
    streams.client.xadd(streams.names.shadow, encode(make_vector(served_as="shadow")), id=f"{FIRST_MS}-2")

    result = call("archive", "--json")

    assert result.exit_code == 0
    results, rejections, shadow, probes = json.loads(result.stdout)
    assert (results["added"], results["days"], rejections["added"], shadow["added"]) == (2, 2, 1, 1)
    assert probes["read"] == 0
    assert kept(archive) == {"2024-01-02": [f"{LAST_MS}-5"], "2024-01-03": [f"{FIRST_MS}-0"]}
    folder = tmp_path / "data" / "archive" / streams.names.namespace
    assert (folder / "rejections" / "2024-01-03.parquet").is_file()
    assert (folder / "shadow" / "2024-01-03.parquet").is_file()
    assert streams.client.xlen(streams.names.results) == 2


def test_probes_are_kept_in_a_folder_of_their_own(call, streams, archive, tmp_path):
    streams.client.xadd(streams.names.probes, encode(make_vector(purpose="probe")), id=f"{FIRST_MS}-0")

    reports = json.loads(call("archive", "--json").stdout)

    assert {report["stream"]: report["added"] for report in reports}[streams.names.probes] == 1
    assert kept(archive) == {}
    assert (tmp_path / "data" / "archive" / streams.names.namespace / "probes" / "2024-01-03.parquet").is_file()


def test_archived_entry_reads_back_as_it_was_published(streams, archive):
    entry_id = publish(streams, "r-1", f"{FIRST_MS}-0", tracestate="a=1", queue_ms=0.1 + 0.2)
    archive_stream(streams.client, archive)

    (day,) = archive.days()
    (entry,) = archive.entries(day, [entry_id])

    assert decode(SignalVector, entry.pairs) == streams.results()[0]
    assert archive.answer_to("r-1").entry_id == entry_id
    assert archive.answer_to("r-2") is None


def test_field_the_contract_does_not_have_is_kept(streams, archive):
    fields = encode(make_vector()) | {"invented_later": "7", "other": "8", "added_at": "9"}
    streams.client.xadd(streams.names.results, fields, id=f"{FIRST_MS}-0")
    archive_stream(streams.client, archive)

    assert archive.answer_to("r-1").fields == fields


def test_second_run_adds_only_what_is_new(call, streams, archive):
    publish(streams, "one", f"{LAST_MS}-0")
    publish(streams, "two", f"{FIRST_MS}-0")
    call("archive")
    before = {path: path.stat().st_mtime_ns for path in archive._folder.glob("*.parquet")}

    again = call("archive")
    publish(streams, "three", f"{FIRST_MS}-1")
    more = call("archive", "--json")

    assert ": 0 added to 0 days, 1 read" in again.stdout
    assert json.loads(more.stdout)[0]["added"] == 1
    assert kept(archive) == {"2024-01-02": [f"{LAST_MS}-0"], "2024-01-03": [f"{FIRST_MS}-0", f"{FIRST_MS}-1"]}
    first_day = archive._path(archive.days()[0])
    assert first_day.stat().st_mtime_ns == before[first_day]


def test_whole_look_finds_what_an_earlier_day_lacks(streams, archive):
    publish(streams, "one", f"{LAST_MS}-0")
    publish(streams, "two", f"{FIRST_MS}-0")
    archive_stream(streams.client, archive)
    archive._path(archive.days()[0]).unlink()

    assert archive_stream(streams.client, archive).added == 0
    assert archive_stream(streams.client, archive, whole=True).added == 1
    assert len(kept(archive)) == 2


def test_cut_stream_takes_nothing_out_of_the_archive(streams, archive):
    publish(streams, "one", f"{FIRST_MS}-0")
    archive_stream(streams.client, archive)
    streams.client.xtrim(streams.names.results, maxlen=0)
    publish(streams, "two", f"{FIRST_MS}-1")

    archive_stream(streams.client, archive)

    assert kept(archive) == {"2024-01-03": [f"{FIRST_MS}-0", f"{FIRST_MS}-1"]}


def test_entry_that_is_no_vector_is_counted_and_left(call, streams, archive):
    streams.client.xadd(streams.names.results, {"hand": "made"}, id=f"{FIRST_MS}-0")
    publish(streams, "good", f"{FIRST_MS}-1")
    publish(streams, "endless", "999999999999999-0")

    result = call("archive")

    assert "1 added to 1 days, 3 read, 2 left out as no outcome" in result.stdout
    assert kept(archive) == {"2024-01-03": [f"{FIRST_MS}-1"]}


def test_many_entries_go_through_in_pages(streams, archive):
    with streams.client.pipeline() as pipe:
        for number in range(2500):
            pipe.xadd(streams.names.results, encode(make_vector(request_id=f"r{number}")), id=f"{FIRST_MS}-{number}")
        pipe.execute()

    assert archive_stream(streams.client, archive).added == 2500
    assert kept(archive)["2024-01-03"] == [f"{FIRST_MS}-{number}" for number in range(2500)]


def test_partition_of_an_older_contract_is_extended(streams, archive):
    publish(streams, "old", f"{FIRST_MS}-0")
    archive_stream(streams.client, archive)
    path = archive._path(archive.days()[0])
    parquet.write_table(parquet.read_table(path).drop_columns(["tracestate", "horizon"]), path)
    publish(streams, "new", f"{FIRST_MS}-1")

    archive_stream(streams.client, archive)

    assert "horizon" not in archive.answer_to("old").fields
    assert archive.answer_to("new").fields["horizon"] == "close of T+1 to close of T+2"


def test_run_that_dies_leaves_the_partition_as_it_was(streams, archive, monkeypatch):
    publish(streams, "one", f"{FIRST_MS}-0")
    archive_stream(streams.client, archive)
    publish(streams, "two", f"{FIRST_MS}-1")

    def fail(*_arguments):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(ArchiveUnusable, match="No space left"):
            archive_stream(streams.client, archive)

    assert kept(archive) == {"2024-01-03": [f"{FIRST_MS}-0"]}
    assert {path.name for path in archive._folder.iterdir()} == {".lock", "2024-01-03.parquet"}
    assert archive_stream(streams.client, archive).added == 1


def test_two_archivers_do_not_write_at_once(call, streams, archive):
    publish(streams, "one", f"{FIRST_MS}-0")
    archive_stream(streams.client, archive)
    lock = take_lock(archive._folder / ".lock")

    result = call("archive")
    lock.release()

    assert result.exit_code == 1
    assert "is being written by another process" in result.stderr


def test_broken_partition_is_named_and_not_replaced(call, streams, archive):
    publish(streams, "one", f"{FIRST_MS}-0")
    archive_stream(streams.client, archive)
    path = archive._path(archive.days()[0])
    path.write_bytes(path.read_bytes()[:100])

    result = call("archive")

    assert result.exit_code == 1
    assert str(path) in result.stderr
    assert path.stat().st_size == 100


def test_namespaces_do_not_share_partitions(tmp_path, valkey_url, namespace):
    archives = []
    for name in (namespace, f"{{{namespace}}}"):
        streams = Streams(valkey_url, name)
        publish(streams, name.strip("{}"), f"{FIRST_MS}-0")
        archives.append(Archive(tmp_path / "data", streams.names.results, SignalVector))
        assert archive_stream(streams.client, archives[-1]).added == 1

    shutil.rmtree(archives[0]._folder)
    assert archives[1].days()


def test_server_that_is_unavailable_is_one_sentence(tmp_path, streams, free_port):
    result = command_line(tmp_path, streams, f"redis://127.0.0.1:{free_port}")("archive")

    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "ConnectionError" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_rejections_read_back_too(streams, tmp_path):
    streams.client.xadd(streams.names.rejections, encode(make_rejection()), id=f"{FIRST_MS}-1")
    archive = Archive(tmp_path / "data", streams.names.rejections, Rejection)
    archive_stream(streams.client, archive)

    assert decode(Rejection, archive.answer_to("r-1").pairs) == make_rejection()
