"""What the pages use of redis-cli, for machines without one: `-u`, `--scan --pattern`, and any command.

Owns: printing replies as redis-cli prints them into a pipe, one value a line.
Must not know: pages.
Invariant: it is no more lenient than the old redis-cli: a URL with a password and no user name is refused.
"""

import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import redis

_OPTIONS = {"-u": "url", "--pattern": "pattern"}


def main(words: list[str]) -> int:
    """Run one command and return the exit code."""
    given = {"url": "redis://127.0.0.1:6379", "pattern": "*"}
    scan = False
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in _OPTIONS:
            given[_OPTIONS[option]] = words.pop(0)
        elif option == "--scan":
            scan = True
        elif option != "--no-auth-warning":
            sys.stderr.write(f"redis-cli here knows no {option}\n")
            return 1
    if urlsplit(given["url"]).password and not urlsplit(given["url"]).username:
        sys.stdout.write("NOAUTH Authentication required.\n")
        return 0
    client: Any = redis.Redis.from_url(given["url"], decode_responses=True, protocol=2)
    found = sorted(client.scan_iter(given["pattern"])) if scan else None
    client.response_callbacks.clear()  # replies as the server sends them
    try:
        reply = client.execute_command(*words) if found is None else found
    except redis.ResponseError as error:
        reply = str(error) if str(error).split()[0].isupper() else f"ERR {error}"
    sys.stdout.writelines(f"{value}\n" for value in _flat(reply))
    return 0


def _flat(reply: Any) -> Iterator[str]:
    if isinstance(reply, list | tuple):
        for part in reply:
            yield from _flat(part)
    else:
        yield "" if reply is None else str(reply)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
