"""Modules that are not linked yet, made into one library or archive. Runs no compiler itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from ..errors import LibraryError
from . import toolchain
from .module import ModulePropertyMask, reachable
from .sources import SourceModule

if TYPE_CHECKING:
    from .module import Module, Path

__all__ = ["export_library"]


def export_library(
    module: Module,
    file_name: Path,
    fcompile: Optional[Callable[..., Any]],
    addons: Optional[Sequence[str]],
    workspace_dir: Optional[Path],
    fpack_imports: Optional[Callable[..., str]],
    options: Dict[str, Any],
) -> Any:
    """What `Module.export_library` does; `options` are for `fcompile`.

    Raises:
        LibraryError: a module cannot be linked, or two of them want other flags.
        CompilerError: no compiler, or it refused.
        TypeError: `addons` are no list of files.
    """
    import tempfile

    more = toolchain.listed("addons", addons or (), "['kernel.o']")
    target = os.fspath(file_name)
    modules = reachable(module)
    _check_exportable(modules)
    if workspace_dir is None:
        with tempfile.TemporaryDirectory(prefix="tvmrpc-export-") as folder:
            files = [*more, *_write(modules, folder)]
            return _link(module, target, files, fcompile, folder, fpack_imports, options)
    folder = os.fspath(workspace_dir)
    files = [*more, *_write(modules, folder)]
    return _link(module, target, files, fcompile, folder, fpack_imports, options)


def _check_exportable(modules: Sequence[Module]) -> None:
    for module in modules:
        if not module.properties & ModulePropertyMask.COMPILATION_EXPORTABLE:
            why = (
                "is linked already"
                if module.kind == "library"
                else f"is of kind {module.kind!r}, which has no code to link"
            )
            raise LibraryError(
                f"{module!r} cannot be exported, as it {why}; expected modules of source "
                "(module_from_source) or object files (load_static_library); to copy a library "
                "that is linked, use save"
            )


def _write(modules: Sequence[Module], folder: str) -> List[str]:
    """The files of the modules."""
    paths = []
    for number, module in enumerate(modules):
        paths.append(os.path.join(folder, f"lib{number}.{module.format}"))
        module.write_to_file(paths[-1])
    return paths


def _link(
    module: Module,
    target: str,
    files: List[str],
    fcompile: Optional[Callable[..., Any]],
    folder: str,
    fpack_imports: Optional[Callable[..., str]],
    options: Dict[str, Any],
) -> Any:
    is_wanted = getattr(fcompile, "need_system_lib", False)
    if is_wanted and not getattr(fcompile, "finds_functions", False):  # and ours register nothing
        raise ValueError(f"{fcompile!r} need --system-lib option")
    if module.imports and fpack_imports is not None:
        files.append(fpack_imports(module, False, "", folder))
    if fcompile is None and target.endswith(".tar"):
        from .archive import pack

        return pack(target, files)
    arguments = dict(options)
    flags = _flags(reachable(module))
    if flags and not target.endswith(".tar"):  # into which nothing but files goes
        given = arguments.get("options") or ()
        arguments["options"] = [*([given] if isinstance(given, str) else given), *flags]
    return (fcompile or toolchain.create_shared)(target, files, **arguments)


def _flags(modules: Sequence[Module]) -> List[str]:
    """What the sources among the modules need in one compilation, in which all have the same."""
    sources = [module.source for module in modules if isinstance(module, SourceModule)]
    wanted = {source.flags for source in sources}
    if len(wanted) > 1:
        raise LibraryError(
            f"modules with different flags cannot be compiled at once: {sorted(wanted)}; "
            "expected the same flags for all sources; export them as libraries of their own"
        )
    folders = {os.path.dirname(source.path) for source in sources if source.path}
    flags = [word for source in sources[:1] for word in source.flags]
    flags += [word for folder in sorted(folders) for word in ("-iquote", folder)]
    return [*flags, "-I" + toolchain.include_dir()] if sources else []
