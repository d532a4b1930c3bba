"""Objects of which there is one: what stands for a handle, a connection or memory elsewhere."""

from __future__ import annotations

from typing import Any, Callable, Type, TypeVar

_Class = TypeVar("_Class", bound=Type[Any])


def not_copied(instead: str) -> Callable[[_Class], _Class]:
    """Decorates a class whose instances own something that must be given back once.

    `copy.copy` and `copy.deepcopy` give the instance itself, as they do for functions of Python,
    unless the class has a deep copy of its own; pickling it raises a TypeError.

    Args:
        instead: what to do instead of pickling, for the message.
    """

    def itself(self: Any) -> Any:
        return self

    def itself_deeply(self: Any, memo: object) -> Any:
        return self

    def refuse(self: Any, protocol: Any) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled, since it stands for something that is "
            f"not in it; {instead}"
        )

    def decorate(cls: _Class) -> _Class:
        cls.__copy__ = itself
        if "__deepcopy__" not in cls.__dict__:
            cls.__deepcopy__ = itself_deeply
        cls.__reduce_ex__ = refuse  # type: ignore[assignment]  # mypy has that of `type` in mind
        return cls

    return decorate
