"""Runs inside the sandbox: gives the functions of a process the code of a changed file.

A function keeps its defaults, decorators, closure and docstring, made when its module or the
function around it was executed. So the code is exchanged only if all these stay as they are. From
Python 3.13 on the body of a class holds its line number, so a change that moves a class is refused.
"""

import contextlib
import gc
import os
import sys
import types
from typing import Any

_OWN = (
    "co_name co_qualname co_argcount co_posonlyargcount co_kwonlyargcount co_flags co_names "
    "co_varnames co_freevars co_cellvars co_code co_exceptiontable"
).split()
_SIGNATURE = (
    "co_name co_argcount co_posonlyargcount co_kwonlyargcount co_flags co_freevars"
).split()
_RUNNING = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.FrameType)


class LiveCode:
    """The functions of the repository that live in this process, and the texts of their files.

    Their files must be clean when it is made.
    """

    def __init__(self, workdir: str) -> None:
        gc.unfreeze()  # get_objects() leaves out frozen ones
        self._workdir = workdir
        self._functions = {}  # type: dict[str, dict[Any, list[Any]]]
        self._texts = {}  # type: dict[str, bytes]
        running = set()  # type: set[Any]
        for thing in gc.get_objects():
            if isinstance(thing, types.FunctionType):
                code = thing.__code__
                if code.co_filename.startswith(workdir + "/"):
                    known = self._functions.setdefault(code.co_filename, {})
                    known.setdefault(code, []).append(thing)
            elif isinstance(thing, _RUNNING):
                frame = [getattr(thing, name, None) for name in ("gi_code", "cr_code", "ag_code")]
                running.update(code for code in [*frame, getattr(thing, "f_code", None)] if code)
        self._running = running
        for path in self._functions:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                self._texts[path] = file.read()

    def exchange(self, path: str) -> bool:
        """Give the functions of a file the code that it has now; False if an import is needed.

        After False some functions may have new code.
        """
        place = os.path.join(self._workdir, path)
        functions = self._functions.get(place, {})
        if place not in self._texts:
            files = [getattr(m, "__file__", None) or "" for m in list(sys.modules.values())]
            return os.path.realpath(place) not in map(os.path.realpath, files)
        try:
            with open(place, "rb") as file:
                new = compile(file.read(), place, "exec", dont_inherit=True)
            old = compile(self._texts[place], place, "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError):
            return False
        pairs = {}  # type: dict[Any, Any]
        if not functions.keys() <= set(codes_in(old)) or not self._pair(old, new, pairs, functions):
            return False
        for before, after in pairs.items():
            for function in functions.get(before, ()):
                function.__code__ = after
        return True

    def _pair(self, old: Any, new: Any, pairs: Any, functions: Any, body: bool = True) -> bool:
        """Collect old and new code of functions. ``body``: of a module or class, run by imports."""
        same = own_part(old) == own_part(new)
        if body and not same:
            return False
        if not body:
            if pairs.setdefault(old, new) != new:
                return False  # two functions of the same code, such as lambdas in a line
            if not same:
                kept = all(getattr(old, name) == getattr(new, name) for name in _SIGNATURE)
                arguments = old.co_argcount + old.co_kwonlyargcount
                kept = kept and old.co_varnames[:arguments] == new.co_varnames[:arguments]
                first = [[c for c in code.co_consts[:1] if type(c) is str] for code in (old, new)]
                within = set(codes_in(old)) - {old}
                kept = kept and first[0] == first[1]  # the docstring, if there is one
                return kept and old not in self._running and not within & functions.keys()
        return all(
            self._pair(before, after, pairs, functions, is_body(before, body))
            for before, after in zip(inner_codes(old), inner_codes(new))
        )


def inner_codes(code: Any) -> Any:
    """The code objects that are constants of another."""
    return [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]


def codes_in(code: Any) -> Any:
    """A code object and all within it."""
    yield code
    for inner in inner_codes(code):
        yield from codes_in(inner)


def own_part(code: Any) -> Any:
    """What a code object does, but for the functions that it makes and for line numbers."""
    constants = [
        "code" if isinstance(constant, types.CodeType) else repr(constant)
        for constant in code.co_consts
    ]
    return [getattr(code, name, None) for name in _OWN], constants


def is_body(code: Any, in_body: bool) -> bool:
    """Whether code is executed where it stands: that of a class, a comprehension of a module."""
    is_comprehension = code.co_name.startswith("<") and code.co_name != "<lambda>"
    return not code.co_flags & 1 or (in_body and is_comprehension)
