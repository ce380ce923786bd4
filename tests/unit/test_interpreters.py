"""Which Python `make` takes, and what it prints where none will do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.compose import ROOT

THIS = ".".join(map(str, sys.version_info[:3]))


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def write_python(path, version):
    """A program that answers as a Python of this version does."""
    return write_program(path, f"echo {version} {path}")


def run(*command, home, programs=None, **variables):
    path = f"{programs}:/usr/bin:/bin" if programs else "/usr/bin:/bin"
    environment = {"HOME": str(home), "PATH": path, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def chosen(home, programs, *mode, **variables):
    return run(ROOT / "deploy" / "python.sh", *mode, home=home, programs=programs, **variables)


def test_newest_with_wheels_of_qlib_is_taken_then_the_newest(tmp_path):
    for version in ("3.14.2", "3.13.9", "3.12.99"):
        write_python(tmp_path / "bin" / f"python{version[:4]}", version)
    oldest = write_python(tmp_path / "bin" / "python3.11", "3.11.99")

    found = chosen(tmp_path, tmp_path / "bin", "all").stdout.splitlines()

    fakes = [line.split()[0] for line in found if str(tmp_path) in line]
    assert fakes == ["3.12.99", "3.11.99", "3.14.2", "3.13.9"]
    assert chosen(tmp_path, tmp_path / "bin").stdout.strip() == str(tmp_path / "bin" / "python3.12")
    (tmp_path / "bin" / "python3.12").unlink()
    assert chosen(tmp_path, tmp_path / "bin").stdout.strip() in {str(oldest), "/usr/bin/python3.12"}


def test_interpreters_of_pyenv_are_found_the_newest_release_first(tmp_path):
    for version in ("3.12.97", "3.12.99"):
        write_python(tmp_path / ".pyenv" / "versions" / version / "bin" / "python3.12", version)

    assert chosen(tmp_path, None).stdout.strip() == str(tmp_path / ".pyenv/versions/3.12.99/bin/python3.12")


def test_named_interpreter_is_the_only_one_considered(tmp_path):
    write_python(tmp_path / "bin" / "python3.12", "3.12.99")

    found = chosen(tmp_path, tmp_path / "bin", "all", PYTHON=sys.executable)

    assert found.stdout.split()[0] == THIS
    assert Path(found.stdout.split()[1]).exists()
    assert len(found.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("exit 1", "does not run"),
        ('echo "Python 3.10.13 is not one of 3.11 to 3.14" >&2; exit 1', "not one of 3.11 to 3.14"),
    ],
)
def test_named_interpreter_that_will_not_do_is_refused_by_its_reason(tmp_path, program, reason):
    python = write_program(tmp_path / "python", program)

    done = chosen(tmp_path, None, PYTHON=str(python))

    assert done.returncode == 1
    assert reason in done.stderr
    assert str(python) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_interpreter_without_ensurepip_is_refused_by_the_name_of_the_package(tmp_path):
    for name in ("deploy", "pyproject.toml"):
        place = tmp_path / "clone" / name
        shutil.copytree(ROOT / name, place) if name == "deploy" else shutil.copy(ROOT / name, place)
    base = os.path.realpath(sys.executable)
    lame = write_program(tmp_path / "python", f'[ "$1" != -m ] || exit 1\nexec {base} "$@"')
    # The probe leads to the base interpreter: this one is its own.
    probe = tmp_path / "clone" / "deploy" / "python.sh"
    write_program(probe, f"echo {lame}")

    done = run(tmp_path / "clone" / "deploy" / "venv.sh", "demo", home=tmp_path, INSTALLER="pip", PYTHON=str(lame))

    assert done.returncode == 1
    assert re.search(rf"has no ensurepip: install python3\.{sys.version_info[1]}-venv", done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "clone" / ".venv").exists()
