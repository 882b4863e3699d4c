import pytest

from minirouter import Pattern


@pytest.mark.parametrize(
    "text, path, params",
    [
        ("/", "/", {}),
        ("/users/{id:int}", "/users/42", {"id": 42}),
        ("/users/{id:int}", "/users/me", None),
        ("/tags/{tag}", "/tags/a%20b", {"tag": "a b"}),
        ("/tags/{tag}", "/tags/a/b", None),
        ("/files/{name:path}", "/files/a/b.txt", {"name": "a/b.txt"}),
        ("/feed.xml", "/feed-xml", None),
        ("/{year:int}/{slug}", "/2024/hello", {"year": 2024, "slug": "hello"}),
    ],
)
def test_match(text, path, params):
    assert Pattern(text).match(path) == params


def test_build():
    assert Pattern("/{year:int}/{slug}").build({"year": 2024, "slug": "hello"}) == "/2024/hello"


def test_build_encodes_values():
    assert Pattern("/tags/{tag}").build({"tag": "a/b c"}) == "/tags/a%2Fb%20c"
    assert Pattern("/files/{name:path}").build({"name": "a/b c"}) == "/files/a/b%20c"


def test_names():
    assert Pattern("/{year:int}/{slug}").names == ["year", "slug"]


def test_a_pattern_starts_with_a_slash():
    with pytest.raises(ValueError, match="starts with a slash"):
        Pattern("users")


def test_unknown_converters_are_refused():
    with pytest.raises(ValueError, match="unknown converter 'uuid'; known: str, int, path"):
        Pattern("/{id:uuid}")
