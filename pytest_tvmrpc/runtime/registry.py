"""The global functions by name: register, look up, list. Not where a library's functions are."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, List, Optional, Union
from weakref import WeakSet

from .function import PackedFunc

__all__ = [
    "get_global_func",
    "list_global_func_names",
    "register_func",
    "register_global_func",
    "register_loaded",
    "remove_global_func",
]

_functions: Dict[str, PackedFunc] = {}

_BUILTIN = ("ffi.", "runtime.", "rpc.testing.")
"""How the names begin of the functions that are entered when somebody asks for one of them."""


@functools.lru_cache(maxsize=None)
def _enter_builtin() -> None:
    from .container_functions import FUNCTIONS

    for name, function in FUNCTIONS.items():
        if name not in _functions:
            _register(name, function, override=False)


def register_func(
    func_name: Union[str, Callable[..., Any]],
    f: Optional[Callable[..., Any]] = None,
    override: bool = False,
) -> Callable[..., Any]:
    """Make a function known by a name; usable as a decorator, with or without the name.

    Args:
        func_name: the name; a function here is registered under its own name.
        f: the function; without it, a decorator is returned.
        override: replace the function that has this name.

    Returns:
        `f` itself, or the decorator.

    Raises:
        ValueError: the name is taken and `override` is not given, or the function has none.
        TypeError: `f` cannot be called, or the name is no text.
    """
    if callable(func_name):
        own_name = getattr(func_name, "__name__", "")
        if not own_name:
            raise ValueError(f"{func_name!r} has no name of its own; give it one as func_name")
        return _register(own_name, func_name, override)
    check_name(func_name)
    if f is not None:
        return _register(func_name, f, override)
    name = func_name

    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        return _register(name, function, override)

    return decorator


register_global_func = register_func
"""What TVM calls `register_func` since 0.21."""


def get_global_func(name: str, allow_missing: bool = False) -> Optional[PackedFunc]:
    """The function registered under a name.

    Raises:
        ValueError: there is none, and `allow_missing` is not given; otherwise None is returned.
        TypeError: the name is no text.
    """
    check_name(name)
    function = _functions.get(name)
    if function is None and name.startswith(_BUILTIN):
        _enter_builtin()
        function = _functions.get(name)
    if function is None and not allow_missing:
        raise ValueError(f"Cannot find global function {name}{unavailable()}")
    return function


def note_unavailable(reason: str) -> None:
    """Remember why there is not all that a library would bring, which this process goes without."""
    _unavailable.append(reason)


def unavailable() -> str:
    """What was noted, as the end of a message on something that is not here; "" if nothing was."""
    return "".join(f"; {reason}" for reason in _unavailable)


_unavailable: List[str] = []


def list_global_func_names() -> List[str]:
    """The names of all global functions, sorted."""
    _enter_builtin()
    return sorted(_functions)


def remove_global_func(name: str) -> None:
    """Forget a global function; whoever holds it can still call it.

    Args:
        name: of the function; it is no error, as in TVM, if there is none.

    Raises:
        TypeError: the name is no text.
    """
    check_name(name)
    function = _functions.pop(name, None)
    if function is not None:
        function.is_global = False


def check_name(name: object) -> None:
    """Raises TypeError for what is no name of a function."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no name of a function; expected a str")


def register_loaded(name: str, function: PackedFunc, override: bool) -> None:
    """Make a function of a library known, as the library wants it when it is loaded.

    Its own name it may take again without `override`: a library that is loaded once more, from
    another file, could not be told otherwise.

    Raises:
        ValueError: the name is taken by somebody else, and `override` is not given.
    """
    known = _functions.get(name)
    _register(name, function, override or (known is not None and known in _loaded))
    _loaded.add(function)


_loaded: "WeakSet[PackedFunc]" = WeakSet()


def _register(name: str, function: Callable[..., Any], override: bool) -> Callable[..., Any]:
    if not callable(function):
        raise TypeError(f"{function!r} cannot be called; expected the function to call {name!r}")
    if name in _functions and not override:
        raise ValueError(
            f"Global function {name} is already registered; pass override=True to replace it"
        )
    packed = function if isinstance(function, PackedFunc) else PackedFunc(function, name)
    packed.is_global = True
    _functions[name] = packed
    return function
