import re

from worker.registry.migrations import migrations_directory


def test_migrations_are_numbered_from_one_without_gaps():
    names = sorted(path.name for path in migrations_directory().iterdir())

    assert all(re.fullmatch(r"\d{3}_[a-z]+(_[a-z]+)*\.sql", name) for name in names)
    assert [int(name[:3]) for name in names] == list(range(1, len(names) + 1))


def test_migrations_keep_their_names_for_ever():
    names = sorted(path.stem for path in migrations_directory().iterdir())

    # Applied under these names in databases that exist: a renamed file would be applied once more.
    assert names[:7] == [
        "001_create_model_registry",
        "002_add_activation_history",
        "003_add_roles",
        "004_add_canaries",
        "005_fall_back_on_failure",
        "006_apply_as_plain_owner",
        "007_record_canary_stops",
    ]


def test_every_function_fixes_its_search_path():
    text = "".join(path.read_text(encoding="ascii") for path in migrations_directory().iterdir())
    headers = re.findall(r"CREATE OR REPLACE FUNCTION.*?AS \$\$", text, re.DOTALL)

    assert len(headers) > 10
    assert [header for header in headers if "SET search_path = pg_catalog, pg_temp" not in header] == []


def test_no_function_needs_a_superuser_to_be_created():
    text = "".join(path.read_text(encoding="ascii") for path in migrations_directory().iterdir())
    options = re.findall(r"^SET (\S+)", text, re.MULTILINE)

    # A parameter that the server does not know may be an option of a function for superusers alone.
    assert set(options) == {"search_path"}
