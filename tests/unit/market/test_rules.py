from pathlib import Path

from strategies.market.importing import ImportOptions
from strategies.market.rules import LIMITS, REASONS, RULES, Rules, rules_page
from strategies.market.vendors import vendors_page

PAGE = Path(__file__).parents[3] / "docs" / "data.md"


def test_page_states_the_rules_and_vendors_of_the_code():
    page = PAGE.read_text(encoding="utf-8")

    assert rules_page() in page
    assert vendors_page() in page


def test_each_rule_has_one_name_and_a_limit_that_exists():
    names = [rule.name for rule in RULES]

    assert len(names) == len(set(names))
    assert {rule.limit for rule in RULES} - {""} <= set(LIMITS)
    assert set(REASONS) <= set(names)
    assert all(rule.set_by() for rule in RULES if rule.limit)


def test_default_of_the_table_is_the_default_of_an_import():
    rules = ImportOptions().rules

    assert rules == Rules()
    assert f"| {rules.max_move:g} |" in rules_page()
