import structlog

from contracts import StreamNames
from contracts.codec import encode
from tests.support.wire import make_vector
from worker.client.feeds import Feed, read


def run(operation, replies):
    """Return what an operation returns, and the commands it sent; replies by the command's name, in order."""
    commands, step = [], next(operation)
    try:
        while True:
            commands.append(step.command)
            step = operation.send(replies[step.command[0]].pop(0))
    except StopIteration as end:
        return end.value, commands


def test_older_servers_nil_is_looked_up_under_the_own_name():
    feed = Feed(names=StreamNames(), group="desk", consumer="c", from_id="0", block_ms=1, claim_after_ms=1)
    feed.position, feed.recover = "0-0", False
    flat = [text.encode() for pair in encode(make_vector()).items() for text in pair]
    claimed = {"XAUTOCLAIM": [[b"0-0", [None, [b"2-0", flat]]]], "XREADGROUP": [None]}

    first, _ = run(read(feed, 100), claimed)
    feed.next_claim = float("inf")
    with structlog.testing.capture_logs() as logs:
        second, commands = run(
            read(feed, 100),
            {"XREADGROUP": [[[b"signals:results", [[b"1-0", None], [b"2-0", flat]]]], None], "XACK": [1]},
        )

    assert [delivery.entry_id for delivery in first] == ["2-0"]
    assert second == []
    assert feed.trimmed_count == 1
    assert ("XACK", "signals:results", "desk", "1-0") in commands
    assert [line["event"] for line in logs] == ["results_trimmed_while_pending"]
