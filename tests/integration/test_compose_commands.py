import subprocess
import sys

import pytest

from contracts.streams import StreamNames
from tests.support.compose import filled_in, image_healthcheck, our_services, services
from tests.support.servers import connect_redis
from worker.embedded.identity import free_port
from worker.embedded.processes import wait_until
from worker.settings import inherited_environment


@pytest.fixture
def environment_of(valkey_url, empty_database_url, namespace, tmp_path):
    """The environment of a service, its servers, folders and port replaced by this machine's."""

    def environment(service):
        given = {"VALKEY_PASSWORD": "x", "POSTGRES_PASSWORD": "x", "SIGNALS_NAMESPACE": namespace}
        found = {name: filled_in(value, given) for name, value in our_services()[service]["environment"].items()}
        found |= {"REDIS_URL": valkey_url, "DATABASE_URL": empty_database_url}
        for name, folder in (("SIGNALS_DATA_DIR", "data"), ("SIGNALS_ARTIFACTS_DIR", "artifacts")):
            (tmp_path / folder).mkdir(exist_ok=True)
            found[name] = str(tmp_path / folder)
        if "SIGNALS_HEALTH_PORT" in found:
            found["SIGNALS_HEALTH_PORT"] = str(free_port())
        return inherited_environment() | found

    return environment


@pytest.fixture
def begin():
    """Start services; what still runs at the end is ended."""
    running = []

    def start(service, environment):
        command = [sys.executable, "-m", "worker", *our_services()[service]["command"]]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
    for process in running:
        process.communicate(timeout=60)


def test_services_run_without_docker_on_the_same_environment(begin, environment_of, valkey_url, namespace):
    migrate = begin("migrate", environment_of("migrate"))
    said, _ = migrate.communicate(timeout=60)
    assert migrate.returncode == 0, said

    publisher_environment = environment_of("publisher")
    publisher = begin("publisher", publisher_environment)
    worker_environments = [environment_of("worker") for _ in range(services()["worker"]["deploy"]["replicas"])]
    workers = [begin("worker", environment) for environment in worker_environments]
    with connect_redis(valkey_url) as client:
        names = StreamNames(namespace)
        # Without a model they read nothing; what is too late they reject all the same.
        late = {"deadline": "2020-01-01T00:00:00Z"}
        client.xadd(names.requests, {"strategy": "alpha_baseline", "symbols": "AAPL", **late})
        assert wait_until(lambda: client.xlen(names.rejections) == 1, 60)
        assert wait_until(lambda: len(list(client.scan_iter(names.worker("*")))) == len(workers), 60)

    for environment in worker_environments:
        port = environment["SIGNALS_HEALTH_PORT"]
        check = [sys.executable, *image_healthcheck()[1:]]
        assert "127.0.0.1:8080" in check[-1]
        subprocess.run([*check[:-1], check[-1].replace("8080", port)], check=True, timeout=30)
    _, _, *words = services()["publisher"]["healthcheck"]["test"]

    def healthy():
        check = [sys.executable, "-m", "worker", *words]
        return subprocess.run(check, env=publisher_environment, check=False, timeout=60).returncode == 0

    assert wait_until(healthy, 60)

    for process in (publisher, *workers):
        process.terminate()
    assert [process.wait(timeout=60) for process in (publisher, *workers)] == [0, 0, 0]
