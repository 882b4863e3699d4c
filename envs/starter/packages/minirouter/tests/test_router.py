import pytest

from minirouter import BuildError, MethodNotAllowed, NotFound, Router


@pytest.fixture
def router():
    router = Router()
    router.add("/users", lambda: "all", name="users")
    router.add("/users", lambda: "new", methods=["post"], name="new_user")
    router.add("/users/{id:int}", lambda id: id, methods=["GET", "DELETE"], name="user")
    router.add("/{page}", lambda page: page, name="page")
    return router


def test_the_first_match_wins(router):
    assert router.match("GET", "/users").route.name == "users"
    assert router.match("GET", "/about").params == {"page": "about"}


def test_methods_are_told_apart(router):
    assert router.match("post", "/users").call() == "new"


def test_head_goes_where_get_goes(router):
    assert router.match("HEAD", "/users/3").call() == 3


def test_unknown_paths(router):
    with pytest.raises(NotFound, match="no route matches /users/x"):
        router.match("GET", "/users/x")


def test_unknown_methods(router):
    with pytest.raises(MethodNotAllowed) as error:
        router.match("PUT", "/users/3")
    assert error.value.allowed == ["DELETE", "GET"]


def test_names_are_unique(router):
    with pytest.raises(ValueError, match="a route 'user' already"):
        router.add("/other", lambda: None, name="user")


def test_url_for(router):
    assert router.url_for("users") == "/users"
    assert router.url_for("user", {"id": 3}) == "/users/3"


def test_url_for_puts_the_rest_into_the_query(router):
    assert router.url_for("user", {"id": 3, "tab": "posts"}) == "/users/3?tab=posts"


def test_url_for_an_unknown_route(router):
    with pytest.raises(BuildError, match="no route 'nobody'"):
        router.url_for("nobody")


def test_url_for_a_value_that_does_not_fit(router):
    with pytest.raises(BuildError, match="cannot have 'me' for 'id'"):
        router.url_for("user", {"id": "me"})


def test_include(router):
    outer = Router()
    outer.include("/api", router)
    assert outer.match("GET", "/api/users/3").call() == 3
    assert outer.url_for("api.user", {"id": 3}) == "/api/users/3"


def test_a_route_can_be_a_decorator():
    router = Router()

    @router.route("/hello/{name}")
    def hello(name):
        return f"Hello {name}"

    assert router.match("GET", "/hello/Ann").call() == "Hello Ann"
