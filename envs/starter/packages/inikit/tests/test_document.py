import pytest

from inikit import Document, MissingKey, WrongType, loads

SETTINGS = loads("""
[main]
Debug = Yes
workers = 4
ratio = 0.5
hosts = a, b,, c
""")


def test_keys_ignore_case():
    assert SETTINGS["main"]["DEBUG"] == "Yes"
    assert "debug" in SETTINGS["main"]


def test_typed_values():
    main = SETTINGS["main"]
    assert main.get_bool("debug") is True
    assert main.get_int("workers") == 4
    assert main.get_float("ratio") == 0.5
    assert main.get_list("hosts") == ["a", "b", "c"]


def test_defaults_are_for_missing_keys_only():
    assert SETTINGS["main"].get_int("retries", 0) == 0
    assert SETTINGS["main"].get_int("workers", 9) == 4


def test_missing_sections_and_keys():
    with pytest.raises(MissingKey, match=r"no section \[other\]"):
        SETTINGS["other"]
    with pytest.raises(KeyError, match=r"no key 'x' in section \[main\]"):
        SETTINGS["main"].get_int("x")


def test_wrong_types_are_named():
    with pytest.raises(WrongType, match=r"\[main\] debug: 'Yes' is not an integer"):
        SETTINGS["main"].get_int("debug")


def test_merge_lets_the_other_win():
    base = loads("[a]\nx = 1\ny = 2")
    base.merge(loads("[a]\ny = 3\n[b]\nz = 4"))
    assert base.as_dict() == {"a": {"x": "1", "y": "3"}, "b": {"z": "4"}}


def test_remove():
    document = loads("[a]\n[b]")
    document.remove("a")
    assert "a" not in document and len(document) == 1
    with pytest.raises(MissingKey):
        document.remove("a")


def test_a_new_document_is_empty():
    assert Document() == loads("")
