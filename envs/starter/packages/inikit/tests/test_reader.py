import pytest

from inikit import ParseError, load, loads


def test_sections_and_keys():
    document = loads("[a]\nx = 1\ny: 2\n\n[ b ]\nz=3\n")
    assert document.as_dict() == {"a": {"x": "1", "y": "2"}, "b": {"z": "3"}}


def test_keys_before_any_section_are_in_the_unnamed_one():
    assert loads("x = 1\n[a]\ny = 2").as_dict() == {"": {"x": "1"}, "a": {"y": "2"}}


def test_comments_and_blank_lines_are_skipped():
    assert loads("# one\n\n; two\n[a] # three\nx = 1 ; four\n").as_dict() == {"a": {"x": "1"}}


def test_a_hash_inside_a_word_is_no_comment():
    assert loads("[a]\ncolour = x#fff")["a"]["colour"] == "x#fff"


def test_quotes_keep_blanks_and_comment_signs():
    assert loads('[a]\nx = " # 1 " ; real')["a"]["x"] == " # 1 "


def test_line_breaks_in_quotes():
    assert loads('[a]\nx = "one\\ntwo"')["a"]["x"] == "one\ntwo"


def test_a_section_that_comes_twice_is_merged():
    assert loads("[a]\nx=1\n[b]\n[a]\nx=2\ny=3").as_dict() == {"a": {"x": "2", "y": "3"}, "b": {}}


@pytest.mark.parametrize(
    "text, line",
    [("[a\nx=1", 1), ("[a]\n\nnothing", 3), ('[a]\nx = "open', 2)],
    ids=["header", "pair", "quotes"],
)
def test_errors_name_the_line(text, line):
    with pytest.raises(ParseError) as error:
        loads(text)
    assert error.value.line == line


def test_load_reads_utf8(tmp_path):
    path = tmp_path / "a.ini"
    path.write_bytes("[a]\nname = Zoë\n".encode("utf-8"))
    assert load(path)["a"]["name"] == "Zoë"
