"""README and docs: every fence is run or states why not, every link leads somewhere, every command line exists."""

import ast
import re
import shlex
import tomllib

import pytest
from typer.main import get_command

from tests.support.pages import ROOT, blocks, mentioned_lines, pages
from worker.cli.main import app

FENCES = [fence for path in pages() for fence in blocks(path)]
#: Fences that other tests read: trainings, and the program of a gateway.
READ_ELSEWHERE = {("docs/training.md", "yaml"), ("docs/gateway.md", "python")}
LINKS = [
    (path, target)
    for path in pages()
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    if not target.startswith("http")
]
#: Paths of this repository that pages name, with the function or class that they name in it.
NAMED = sorted(
    {
        named
        for path in (ROOT / "CONTRIBUTING.md", ROOT / "docs/architecture.md", *sorted((ROOT / "docs/adr").glob("*.md")))
        for named in re.findall(
            r"`((?:contracts|deploy|docs|migrations|strategies|tests|worker)/[\w./-]*(?:::[\w.]+)?)`",
            path.read_text(encoding="utf-8"),
        )
    }
)
#: Examples of files that a recipe makes.
EXAMPLES = {"migrations/007_add_owner.sql"}
LINES = sorted({line for path in pages() for line in mentioned_lines(path) if line.startswith("signal-worker ")})


def named(value):
    return str(value.relative_to(ROOT)) if hasattr(value, "relative_to") else str(value)


@pytest.mark.parametrize("fence", FENCES, ids=lambda fence: fence.place)
def test_fence_is_run_or_states_why_not(fence):
    runs = fence.language in {"sh", "sql"} or fence.file_name or fence.printed
    read = (fence.page, fence.language) in READ_ELSEWHERE

    assert runs or read or fence.not_run, f"a fence of {fence.language or 'no language'} that no test reads"


def test_few_fences_are_not_run_and_each_has_a_reason():
    left_out = {fence.place: fence.not_run for fence in FENCES if fence.not_run}

    assert len(left_out) <= 10, left_out
    assert all(len(reason.split()) >= 2 for reason in left_out.values()), left_out


@pytest.mark.parametrize(("path", "target"), LINKS, ids=named)
def test_link_leads_somewhere(path, target):
    file, _, anchor = target.partition("#")
    page = path.parent / file if file else path

    assert page.exists(), target
    if anchor:
        assert anchor in anchors(page.read_text(encoding="utf-8")), target


def anchors(text):
    """Return the anchors that a page has on GitHub: its headings in lower case, hyphens for blanks."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("line", LINES)
def test_command_line_of_a_page_exists(line):
    words, command = [word for word in shlex.split(line)[1:] if word != "…"], get_command(app)
    while words and (found := getattr(command, "commands", {}).get(words[0])):
        command, words = found, words[1:]

    assert hasattr(command, "callback"), line
    assert not getattr(command, "commands", {}) or not words or words[0].startswith("-"), line
    verbs = [command, *getattr(command, "commands", {}).values()]
    parameters = [parameter for verb in verbs for parameter in verb.params]
    options = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= options | {"--help"}


def test_map_of_the_rooms_shows_every_folder_of_the_layers():
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = [
        f"{package}/{name}"
        for contract in content["tool"]["importlinter"]["contracts"]
        for package in contract.get("containers", ())
        if package in {"strategies", "worker"}
        for layer in contract["layers"]
        for name in layer.split(" | ")
        if (ROOT / package / name).is_dir()
    ]

    assert len(rooms) > 10
    assert [room for room in rooms if f"`{room}/`" not in page] == []


def test_newest_release_of_the_changelog_is_the_projects_version_with_its_day():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]

    assert re.fullmatch(rf"{re.escape(project['version'])} - \d{{4}}-\d\d-\d\d", released[0])


@pytest.mark.parametrize("named_thing", sorted(set(NAMED) - EXAMPLES))
def test_path_and_function_that_a_page_names_exist(named_thing):
    path, _, name = named_thing.partition("::")

    assert (ROOT / path).exists(), path
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body if name else []
    for part in filter(None, name.split(".")):
        found = [node for node in body if getattr(node, "name", "") == part]
        assert found, f"{path} has no {name}"
        body = getattr(found[0], "body", [])
