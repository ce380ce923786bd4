from pathlib import Path

from typer.testing import CliRunner

from worker.cli.main import app
from worker.cli.settings import markdown_table
from worker.settings import setting_names

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_page_of_settings_is_what_the_code_states():
    assert PAGE.read_text(encoding="utf-8") == markdown_table() + "\n"


def test_command_prints_the_page_and_names_every_setting():
    printed = CliRunner().invoke(app, ["settings", "--markdown"]).stdout

    assert printed == markdown_table() + "\n"
    assert all(f"`{name}`" in printed for name in setting_names())


def test_passwords_of_urls_are_not_shown(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://user:geheim@127.0.0.1:6379/0")
    monkeypatch.setenv("COLUMNS", "300")

    printed = CliRunner().invoke(app, ["settings"]).stdout

    assert "geheim" not in printed
    assert "redis://user:…@127.0.0.1:6379/0" in printed
