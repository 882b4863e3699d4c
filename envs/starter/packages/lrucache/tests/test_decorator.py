from lrucache import cached, make_key


def recorder(**options):
    """A cached function, and the list of calls that reached it."""
    calls = []

    @cached(**options)
    def function(*args, **kwargs):
        """Doc."""
        calls.append((args, kwargs))
        return len(calls)

    return function, calls


def test_the_second_call_is_remembered():
    function, calls = recorder()
    assert function(1) == function(1) == 1
    assert calls == [((1,), {})]


def test_other_arguments_are_another_call():
    function, calls = recorder()
    assert [function(1), function(2), function(x=1), function()] == [1, 2, 3, 4]


def test_the_order_of_keywords_does_not_matter():
    assert make_key((1,), {"a": 1, "b": 2}) == make_key((1,), {"b": 2, "a": 1})


def test_none_is_remembered_too():
    calls = []

    @cached()
    def nothing():
        calls.append(1)

    assert nothing() is nothing() is None
    assert len(calls) == 1


def test_own_key():
    function, calls = recorder(key=lambda name, **_: name.lower())
    assert function("A", retries=1) == function("a") == 1


def test_results_expire():
    now = [0.0]
    function, calls = recorder(ttl=5, clock=lambda: now[0])
    function()
    now[0] = 5.0
    assert function() == 2


def test_name_and_docstring_are_kept():
    function, _ = recorder()
    assert (function.__name__, function.__doc__) == ("function", "Doc.")
