"""What a process needs of the stream server, looked at once when it starts.

Owns: the least version, the settings of a server that loses outcomes, the commands and keys of each role.
Must not know: what a role does with them; a server that is unavailable, which its caller waits for.
Invariant: looking changes nothing: no command of a role is executed, see `Client.may_send`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from contracts.streams import StreamNames
from worker.errors import SettingsError, StreamUnavailable
from worker.transport.client import Client

#: XAUTOCLAIM, XADD NOMKSTREAM and XTRIM MINID are as old.
LEAST_VERSION = (6, 2)
#: No group, consumer, request or entry has these.
_NOBODY, _NOTHING = "requirements", "0-0"

_REFUSED = "NOPERM"
#: What a server answers that runs no scripts: to this login, or to anybody.
_OF_SCRIPTS = frozenset({_REFUSED, "ResponseError", "ERR"})

Command = tuple[str, ...]

_EVALSHA: Command = ("EVALSHA", "0" * 40, "0")


class StreamRole(StrEnum):
    """What a process is to the stream server."""

    WORKER = "worker"
    PUBLISHER = "publisher"
    PRODUCER = "producer"
    GATEWAY = "gateway"


#: Roles that run none.
_WITHOUT_SCRIPTS = frozenset({StreamRole.PUBLISHER, StreamRole.PRODUCER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One need of a role, and what was found."""

    #: What is needed, as a clause.
    need: str
    #: What was found.
    found: str
    #: Whether it is enough; None = the login may not look.
    met: bool | None


def require_stream_server(client: Client, names: StreamNames, role: StreamRole) -> None:
    """Look once whether the server and this login are enough for a role.

    Raises:
        SettingsError: Something is missing; one sentence names all of it.
        StreamUnavailable: The server does not answer.
    """
    refuse_unmet("REDIS_URL", role, stream_findings(client, names, role))


def refuse_unmet(setting: str, role: str, findings: Iterable[Finding]) -> None:
    """Raise where a need is not met.

    Raises:
        SettingsError: One sentence names each need that is not met, and what was found.
    """
    unmet = [f"{finding.need}; {finding.found}" for finding in findings if finding.met is False]
    if unmet:
        raise SettingsError(f"{setting}: {role} needs {'. It needs '.join(unmet)}")


def stream_findings(client: Client, names: StreamNames, role: StreamRole) -> list[Finding]:
    """Return each need of a role and what was found.

    Raises:
        StreamUnavailable: The server does not answer.
    """
    findings = [*_of_server(client), _of_rights(client, commands_of(role, names))]
    return findings if role in _WITHOUT_SCRIPTS else [*findings, _of_scripts(client)]


def commands_of(role: StreamRole, names: StreamNames) -> list[Command]:
    """Return every command that a role sends, on each of its keys."""
    match role:
        case StreamRole.WORKER:
            return _of_worker(names)
        case StreamRole.PUBLISHER:
            return [("PING",), _add(names.control)]
        case StreamRole.PRODUCER:
            return _of_producer(names)
        case StreamRole.GATEWAY:
            return _of_gateway(names)


def _of_worker(names: StreamNames) -> list[Command]:
    requests, request, worker = names.requests, names.request(_NOBODY), names.worker(_NOBODY)
    outcomes = (names.results, names.probes, names.rejections, names.shadow, names.events)
    return [
        ("TIME",),
        _EVALSHA,
        # The heartbeats of the others, as witnesses against a model.
        ("SCAN", "0"),
        ("HGETALL", worker),
        *_of_group(requests),
        *map(_add, (*outcomes, requests)),
        *(
            command
            for stream in (*outcomes, requests, names.control)
            for command in (("XTRIM", stream, "MAXLEN", "1"), ("XINFO", "GROUPS", stream))
        ),
        ("XINFO", "CONSUMERS", requests, _NOBODY),
        ("XGROUP", "DELCONSUMER", requests, _NOBODY, _NOBODY),
        ("XRANGE", requests, _NOTHING, _NOTHING, "COUNT", "1"),
        ("XREAD", "COUNT", "1", "STREAMS", names.control, "$"),
        ("XREVRANGE", names.control, "+", "-", "COUNT", "1"),
        ("XINFO", "STREAM", names.control),
        *_of_hash(request),
        ("TYPE", request),
        ("PTTL", request),
        *_of_hash(worker),
        ("SET", names.janitor, _NOBODY, "NX"),
        ("SMEMBERS", names.behind),
        ("SADD", names.behind, _NOBODY),
        ("SREM", names.behind, _NOBODY),
        ("SADD", names.given(_NOBODY), _NOBODY),
        ("SPOP", names.given(_NOBODY), "1"),
        ("PEXPIRE", names.given(_NOBODY), "1"),
    ]


def _of_producer(names: StreamNames) -> list[Command]:
    request = names.request(_NOBODY)
    outcomes = (names.results, names.probes, names.rejections)
    return [
        _add(names.requests),
        ("HMGET", request, "state"),
        *(("XRANGE", stream, _NOTHING, _NOTHING, "COUNT", "1") for stream in outcomes),
    ]


def _of_gateway(names: StreamNames) -> list[Command]:
    state, results = f"{names.namespace}:gateway:{_NOBODY}:book:{_NOBODY}", names.results
    return [
        ("TIME",),
        _EVALSHA,
        ("XGROUP", "CREATE", results, _NOBODY, "0", "MKSTREAM"),
        ("XREADGROUP", "GROUP", _NOBODY, _NOBODY, "COUNT", "1", "STREAMS", results, ">"),
        ("XAUTOCLAIM", results, _NOBODY, _NOBODY, "1", _NOTHING),
        ("XPENDING", results, _NOBODY),
        ("XACK", results, _NOBODY, "0-1"),
        ("HMGET", state, "field"),
        ("HGET", state, "field"),
        ("HSET", state, "field", "value"),
        ("HDEL", state, "field"),
        ("HINCRBY", state, "field", "1"),
        ("PEXPIRE", state, "1"),
    ]


def _of_group(stream: str) -> list[Command]:
    return [
        ("XGROUP", "CREATE", stream, _NOBODY, "0", "MKSTREAM"),
        ("XREADGROUP", "GROUP", _NOBODY, _NOBODY, "COUNT", "1", "STREAMS", stream, ">"),
        ("XAUTOCLAIM", stream, _NOBODY, _NOBODY, "1", _NOTHING),
        ("XCLAIM", stream, _NOBODY, _NOBODY, "1", "0-1"),
        ("XPENDING", stream, _NOBODY),
        ("XACK", stream, _NOBODY, "0-1"),
    ]


def _of_hash(key: str) -> list[Command]:
    return [
        ("HMGET", key, "field"),
        ("HGET", key, "field"),
        ("HSET", key, "field", "value"),
        ("HDEL", key, "field"),
        ("HINCRBY", key, "field", "1"),
        ("PEXPIRE", key, "1"),
        ("EXISTS", key),
        ("DEL", key),
    ]


def _add(stream: str) -> Command:
    return ("XADD", stream, "*", "field", "value")


def _of_server(client: Client) -> list[Finding]:
    try:
        info = client.execute_command("INFO")
    except StreamUnavailable as error:
        if error.reason != _REFUSED:
            raise
        return [Finding(need="a server that keeps what it is given", found="this login may not send INFO", met=None)]
    return [_of_version(info), _of_eviction(info), _of_mode(info)]


def _of_version(info: Mapping[str, Any]) -> Finding:
    family = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "")
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    return Finding(
        need=f"Redis {'.'.join(map(str, LEAST_VERSION))} or later, or Valkey",
        found=f"the server is {family} {version or 'of no stated version'}",
        met=numbers >= LEAST_VERSION if numbers else None,
    )


def _of_eviction(info: Mapping[str, Any]) -> Finding:
    limit, policy = int(info.get("maxmemory") or 0), str(info.get("maxmemory_policy") or "noeviction")
    need = "a server that evicts no key, as an evicted one is a lost or a second outcome (maxmemory-policy noeviction)"
    return Finding(
        need=need,
        found=f"it has maxmemory {limit} with {policy}" if limit else "it has no maxmemory",
        met=not limit or policy == "noeviction",
    )


def _of_mode(info: Mapping[str, Any]) -> Finding:
    mode = "cluster" if str(info.get("cluster_enabled", "0")) == "1" else str(info.get("redis_mode") or "standalone")
    return Finding(
        need="one server that has every key of a commit, no cluster and no sentinel",
        found=f"it runs as {mode}",
        met=mode == "standalone",
    )


def _of_scripts(client: Client) -> Finding:
    need = "scripts (EVAL)"
    try:
        client.execute_command("EVAL", "return 1", 0)
    except StreamUnavailable as error:
        if error.reason not in _OF_SCRIPTS:
            raise
        return Finding(need=need, found=f"EVAL is refused ({error})", met=False)
    return Finding(need=need, found="they run", met=True)


def _of_rights(client: Client, commands: Sequence[Command]) -> Finding:
    need = "the right to send its commands"
    try:
        allowed = client.may_send(commands)
    except StreamUnavailable as error:
        if error.reason != _REFUSED:
            raise
        return Finding(need=need, found="this login may send no MULTI, in which they are looked at", met=None)
    refused = [_spelled(command) for command, may in zip(commands, allowed, strict=True) if not may]
    return Finding(
        need=need,
        found=f"this login may not {', '.join(dict.fromkeys(refused))}" if refused else "it has all of them",
        met=not refused,
    )


def _spelled(command: Command) -> str:
    """Return a command and its key, as an ACL rule would name them."""
    name, *words = command
    if name in {"XGROUP", "XINFO"}:
        name, *words = f"{name} {words[0]}", *words[1:]
    if name == "EVALSHA":
        return name
    if "STREAMS" in words:
        words = words[words.index("STREAMS") + 1 :]
    return f"{name} {words[0]}" if words else name
