"""The embedded stack: real servers out of wheels, for the quickstart and the tests.

Owns: starting, finding and ending a Valkey and a PostgreSQL of this project's own.
Must not know: streams, models, migrations, settings.
Invariant: a URL that is given always wins, and asking where the servers are never starts one.
"""

from worker.embedded.endpoints import Endpoints, resolve_database_url, resolve_endpoints, resolve_redis_url
from worker.embedded.errors import BinariesMissing, StackBusy, StackError, StackFailed, StackNotRunning
from worker.embedded.stack import LocalStack, ServerStatus, StackStatus

__all__ = [
    "BinariesMissing",
    "Endpoints",
    "LocalStack",
    "ServerStatus",
    "StackBusy",
    "StackError",
    "StackFailed",
    "StackNotRunning",
    "StackStatus",
    "resolve_database_url",
    "resolve_endpoints",
    "resolve_redis_url",
]
