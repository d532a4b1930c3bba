"""Executable: a module that may still have to be linked before it is called."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any, Callable, Optional, Sequence

from .module import Module, load_module, reachable

if TYPE_CHECKING:
    from .function import PackedFunc
    from .module import Path

__all__ = ["Executable"]


class Executable:
    """A module as a compiler leaves it: with parts, perhaps, that are still to be linked.

    Args:
        mod: the module; what it imports belongs to it.

    Attributes:
        mod: as given.

    Raises:
        TypeError: it is no module.
    """

    def __init__(self, mod: Module) -> None:
        if not isinstance(mod, Module):
            raise TypeError(f"{mod!r} is no module; expected e.g. what load_static_library returns")
        self.mod = mod
        self._linked: Optional[Module] = None

    def __getitem__(self, name: str) -> PackedFunc:
        """A function of the linked module, or of one that it imports."""
        __tracebackhide__ = True
        return self.jit().get_function(name, query_imports=True)

    def __call__(self, *args: Any) -> Any:
        """A call of the linked module's entry."""
        __tracebackhide__ = True
        return self.jit()(*args)

    def jit(
        self,
        *,
        fcompile: Optional[Callable[..., Any]] = None,
        addons: Optional[Sequence[str]] = None,
        force_recompile: bool = False,
        **kwargs: Any,  # for fcompile, as in TVM
    ) -> Module:
        """The module, linked so that its functions can be called; linked once.

        Args:
            fcompile, addons, kwargs: as `Module.export_library` takes them.
            force_recompile: link once more.

        Returns:
            `mod` itself if all of it can be called as it is.

        Raises:
            LibraryError: a part cannot be linked; the message names it.
            CompilerError: no compiler, or it refused.
        """
        if self._linked is not None and not force_recompile:
            return self._linked
        if all(module.is_runnable for module in reachable(self.mod)):
            return self.mod
        with tempfile.TemporaryDirectory(prefix="tvmrpc-jit-") as folder:
            path = os.path.join(folder, "linked.so")
            self.export_library(path, fcompile=fcompile, addons=addons, **kwargs)
            self._linked = load_module(path)  # which stays in memory without its file
        return self._linked

    def export_library(
        self,
        file_name: Path,
        *,
        fcompile: Optional[Callable[..., Any]] = None,
        addons: Optional[Sequence[str]] = None,
        workspace_dir: Optional[Path] = None,
        **kwargs: Any,  # for fcompile, as in TVM
    ) -> Any:
        """Link the module and all that it imports into one library.

        Args:
            file_name, fcompile, addons, workspace_dir, kwargs: as `Module.export_library` takes
                them.

        Returns:
            What `fcompile` returns.

        Raises:
            LibraryError, CompilerError: as `jit`.
        """
        return self.mod.export_library(
            file_name, fcompile=fcompile, addons=addons, workspace_dir=workspace_dir, **kwargs
        )

    def __repr__(self) -> str:
        return f"Executable({self.mod!r})"
