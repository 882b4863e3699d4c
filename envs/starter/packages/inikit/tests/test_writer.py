import pytest

from inikit import Document, dumps, load, loads, save


def make(**values):
    document = Document()
    document.section("a").update(values)
    return document


def test_sections_are_separated_by_a_blank_line():
    assert dumps(loads("[a]\nx=1\n[b]\ny=2")) == "[a]\nx = 1\n\n[b]\ny = 2\n"


def test_the_unnamed_section_comes_first():
    document = make(x="1")
    document.section("")["y"] = "2"
    assert dumps(document) == "y = 2\n\n[a]\nx = 1\n"


def test_plain_values_have_no_quotes():
    assert dumps(make(path="/usr/bin")) == "[a]\npath = /usr/bin\n"


@pytest.mark.parametrize(
    "value",
    ["", "x", " x ", "a;b", "a ; b", "# a", "one\ntwo"],
    ids=["empty", "plain", "blanks", "inside", "comment", "hash", "newline"],
)
def test_values_survive(value):
    assert loads(dumps(make(x=value)))["a"]["x"] == value


def test_save_and_load(tmp_path):
    document = make(name="Zoë", motto="first ; then")
    save(document, tmp_path / "a.ini")
    assert load(tmp_path / "a.ini") == document
