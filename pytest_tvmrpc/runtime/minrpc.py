"""with_minrpc: linking compiled code and our Popen server into one program. Starts none."""

from __future__ import annotations

import platform
import shutil
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, Union

from ..errors import CompilerError
from . import toolchain
from .elf import is_program
from .native_programs import LINKING, server_object

__all__ = ["with_minrpc"]

SERVER = "posix_popen_server"
"""TVM's name of the server that reads and writes two descriptors; the only one there is."""

_LINKING = ("-Wl,--no-as-needed", *(word for word in LINKING if word != "-Wl,--as-needed"))
"""Some functions put the options in front of the objects, where libraries would be dropped."""


def with_minrpc(
    compile_func: Union[str, Callable[..., Any]],
    server: str = SERVER,
    runtime: str = "libtvm",
) -> Callable[..., None]:
    """A function that links a program which serves what it is given to a `PopenSession`.

    It is for `Module.export_library`, ours and TVM's, as ``fcompile``. The functions of the objects
    are those of the session's ``system_lib()``. The program needs nothing on its machine but a C
    library::

        module.export_library("kernels.minrpc", fcompile=rpc.with_minrpc(cc.create_executable))
        with rpc.PopenSession("kernels.minrpc") as session:
            session.system_lib()["add"](...)

    TVM exports modules for it that were built as a system library (``--system-lib``). Ours may be
    of C or C++, or object files; kernels of ``kernel.h`` need not register.

    Args:
        compile_func: links a program: ``cc.create_executable`` of TVM, `create_executable`, or one
            of TVM's or our ``cross_compiler`` of it; or the path or name of a compiler, or the
            triple of another machine.
        server: as TVM names it.
        runtime: taken for TVM up to 0.20; the runtime is a part of our server.

    Raises:
        RuntimeError: there is no such server.
        CompilerError: there is no such compiler, or none for this triple.
    """
    if server != SERVER:
        raise RuntimeError(f"Cannot find minserver {server}; expected {SERVER!r}")
    link, chosen = _linker(compile_func)
    triple = getattr(compile_func, "get_target_triple", None)

    def fcompile(
        outputs: str, objects: Union[str, Sequence[str]], options: Union[str, Sequence[str]] = ()
    ) -> None:
        given = [options] if isinstance(options, str) else options or ()
        files = [objects] if isinstance(objects, str) else objects
        compiler = chosen.get("cc")
        target = chosen.get("target") or (None if compiler else _triple_of(triple))
        served = server_object("popen", target, compiler=compiler)
        link(outputs, [*files, served], options=[*given, *_LINKING], **chosen)
        if not is_program(outputs):
            raise CompilerError(
                f"{outputs} became a library, which nobody can start; expected a program; give "
                "with_minrpc a function that links one, such as cc.create_executable"
            )

    made: Any = fcompile
    made.__name__ = "with_minrpc"
    made.need_system_lib = True
    made.finds_functions = True  # our server registers what is linked in, where it does not itself
    made.output_format = getattr(compile_func, "output_format", "minrpc")
    if triple is not None:
        made.get_target_triple = triple
    return fcompile


def _linker(
    compile_func: Union[str, Callable[..., Any]],
) -> Tuple[Callable[..., Any], Dict[str, Any]]:
    """What links a program, and the keyword with the compiler or the target that it gets.

    Raises:
        CompilerError: there is no compiler for this triple.
    """
    if callable(compile_func):
        is_shared = compile_func is toolchain.create_shared
        return toolchain.create_executable if is_shared else compile_func, {}
    if shutil.which(compile_func):
        return toolchain.create_executable, {"cc": compile_func}
    toolchain.find_compiler(has_objects=True, target=compile_func)  # raises now, not later
    return toolchain.create_executable, {"target": compile_func}


def _triple_of(ask: Optional[Callable[[], Optional[str]]]) -> Optional[str]:
    """The machine that a function links for; None for this one."""
    triple = (ask() or "").strip() if ask is not None else ""
    here = triple.split("-")[0] == platform.machine() and "linux" in triple
    return None if here or not triple else triple
