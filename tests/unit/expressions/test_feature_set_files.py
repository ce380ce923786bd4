import pytest

from strategies.errors import ExpressionError
from strategies.expressions.feature_set_files import load_feature_set
from strategies.expressions.feature_sets import define

COLUMNS = [("MA5", "Mean($close, 5)/$close"), ("gap", "$open/Ref($close, 1)-1")]
YAML = 'name: mine\nfeatures:\n  MA5: Mean($close, 5)/$close\n  gap: "$open/Ref($close, 1)-1"\n'
TOML = 'name = "mine"\n[features]\nMA5 = "Mean($close, 5)/$close"\ngap = "$open/Ref($close, 1)-1"\n'
LISTED = """
features:
- {name: MA5, expression: 'Mean($close, 5)/$close'}
- name: gap
  expression: $open/Ref($close, 1)-1
"""


@pytest.mark.parametrize(("file", "text"), [("mine.yaml", YAML), ("mine.toml", TOML), ("mine.yml", LISTED)])
def test_a_list_in_a_file_is_a_feature_set(tmp_path, file, text):
    path = tmp_path / file
    path.write_text(text)

    features = load_feature_set(path)

    assert features == define("mine", COLUMNS)


def test_options_of_a_file_are_those_of_define(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "vwap_stand_in: close\nprecision: float64\nexpanding_sessions: 9\n"
        "features: {v: $vwap/$open, m: 'Mean($close, 0)'}\n"
    )

    features = load_feature_set(path)

    assert features == define(
        "mine", [("v", "$close/$open"), ("m", "Mean($close, 0)")], precision="float64", expanding=9
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no table with `features`"),
        ("- a\n", "holds no table with `features`"),
        ("name: mine\n", "`features` is a mapping of name to expression"),
        ("features: 5\n", "`features` is a mapping of name to expression"),
        ("features: {}\n", "has 0 columns"),
        ("features: {a: 5}\n", "column a was 5, it is a text"),
        ("features: {5: $close}\n", "a column's name was 5, it is a text"),
        ("features: [{name: a}]\n", "each of the list `features` has `name` and `expression`"),
        ("features: {a: $close, a: $open}\n", "the key 'a' is given twice"),
        ("feature: {a: $close}\n", "unknown feature; known are"),
        ("precision: half\nfeatures: {a: $close}\n", "precision was 'half'"),
        ("expanding_sessions: many\nfeatures: {a: $close}\n", "expanding_sessions was 'many'"),
        ("features: {a: 'Ref($close, -1)'}\n", "column a: Ref by -1 looks ahead"),
        ("features: {a: [\n", "mine.yaml: while parsing"),
        ("features: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("? [a]\n: 1\n", "is given twice or is no text"),
        ("[" * 100_000, "mine.yaml: "),
        ("#" * 1_000_001, "has 1000001 bytes, at most 1000000"),
    ],
)
def test_another_shape_is_refused_with_the_file_named(tmp_path, text, reason):
    path = tmp_path / "mine.yaml"
    path.write_text(text)

    with pytest.raises(ExpressionError, match=r"mine\.yaml") as caught:
        load_feature_set(path)

    assert reason in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"features = {"])
def test_an_unreadable_file_is_refused(tmp_path, content):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)

    with pytest.raises(ExpressionError, match=r"mine\.toml"):
        load_feature_set(path)
    with pytest.raises(ExpressionError, match=r"absent\.toml: cannot be read, No such file"):
        load_feature_set(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nfeatures: {c: *a}\n",
        "name: [&a [x], &b [*a, *a]]\n",
        "features: &a {c: *a}\n",
    ],
)
def test_aliases_are_refused_before_they_unfold(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)

    with pytest.raises(ExpressionError, match=r"the alias \*a in line \d is not allowed"):
        load_feature_set(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.yaml", f"expanding_sessions: 0x{'f' * 20_000}\nfeatures: {{c: $close}}\n"),
        ("mine.toml", f"expanding_sessions = 0x{'f' * 20_000}\n[features]\nc = '$close'\n"),
    ],
)
def test_number_too_long_to_spell_is_refused(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(ExpressionError, match="a number of 80000 bits"):
        load_feature_set(path)


def test_long_value_is_cut_in_the_sentence(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"features: {{c: [{'x' * 10_000}]}}\n")

    with pytest.raises(ExpressionError) as caught:
        load_feature_set(path)

    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "form", ["{key} = 1", "[{key}]", "x = {{ {key} = 1 }}", "{spaced} = 1", "{quoted} = 1", "{odd} = 1"]
)
def test_key_of_many_parts_is_refused_unread(tmp_path, form):
    parts = ["a"] * 50_000
    path = tmp_path / "mine.toml"
    odd = ['"$"', '"a b"', "'é!'", '"\\\\"', '""'] * 10_000
    keys = {"key": ".".join(parts), "spaced": " . ".join(parts), "odd": ".".join(odd)}
    keys["quoted"] = ".".join(f'"{part}"' for part in parts)
    path.write_text(form.format(**keys))

    with pytest.raises(ExpressionError, match="a key of more than 16 parts"):
        load_feature_set(path)


def test_long_text_without_a_dotted_key_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML + f"# {'a' * 400_000}{'. ' * 100_000}\n")

    assert load_feature_set(path) == define("mine", COLUMNS)
