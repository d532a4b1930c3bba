"""The global functions of the scripted server: TVM's, as far as clients use them, and a few more.

A function takes the session and its arguments, and returns one value. Functions, modules and
objects are returned as they are, tensors as their records; the session makes handles of them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Union

from .sequences import (
    BYTES,
    FLOAT32,
    FUNCTION,
    INT,
    MODULE,
    NDARRAY,
    NONE,
    NULL,
    OBJECT,
    STR,
    TENSOR,
    Device,
    Record,
    RuleBrokenError,
    Value,
    integer,
    text,
)

if TYPE_CHECKING:
    from .session import Session

Function = Callable[["Session", List[Value]], Union[Value, bytes]]
"""What returns bytes means the body of the answer, as it is."""

TRUTHS = (INT, 15)
"""What may stand where TVM's code wants a bool; the session has refused 15 if it is too old."""


class CheckFailedError(Exception):
    """Raised by TVM's own C++ code: its text travels whatever the version."""


class Module:
    """What load_module makes of a file, whatever is in it."""

    def __init__(self, name: str) -> None:
        self.imports: List[Module] = []
        self.functions: Dict[str, Function] = {
            "addone": _add_one,
            "fill": _fill,
            "__tvm_main__": _add_one,
            f"only_in_{name}": _add_one,
        }

    def find(self, name: str, query_imports: bool) -> Optional[Function]:
        """Its function, or one of what it imports."""
        found = self.functions.get(name)
        for module in self.imports if query_imports and not found else ():
            found = found or module.find(name, True)
        return found


def _codes(arguments: List[Value]) -> List[int]:
    return [argument.code for argument in arguments]


def _expect(name: str, arguments: List[Value], *wanted: Any) -> List[Any]:
    """The contents, if the codes are these; one code or some for each argument."""
    if len(arguments) != len(wanted):
        raise CheckFailedError(
            f"Function {name} expects {len(wanted)} arguments, but {len(arguments)} were provided."
        )
    for at, (argument, legal) in enumerate(zip(arguments, wanted)):
        if argument.code not in (legal if isinstance(legal, tuple) else (legal,)):
            raise CheckFailedError(
                f"In function {name}: error while converting argument {at}: "
                f"expected {legal} but got {argument.code}"
            )
    return [argument.content for argument in arguments]


# What tests call


def _add_one(_: Session, arguments: List[Value]) -> Value:
    (number,) = _expect("addone", arguments, TRUTHS)
    return integer(number + 1)


def _strcat(_: Session, arguments: List[Value]) -> Value:
    name, number = _expect("strcat", arguments, STR, INT)
    return text(f"{name}:{number}")


def _except(_: Session, arguments: List[Value]) -> Value:
    (words,) = _expect("except", arguments, STR)
    raise ValueError(words)


def _remote_array_func(session: Session, arguments: List[Value]) -> Value:
    (tensor,) = _expect("remote_array_func", arguments, TENSOR)
    assert tensor.shape == (3, 4), tensor
    assert set(session.view(tensor).cast("f")) == {1.0}, "ones expected"
    return NONE


def _add_to_lhs(_: Session, arguments: List[Value]) -> Value:
    (left,) = _expect("add_to_lhs", arguments, INT)
    return Value(FUNCTION, lambda _, more: integer(left + more[0].content))


def _tensor(session: Session, _: List[Value]) -> Value:
    """float32[2, 3] of 0 to 5."""
    made = Record(session.allocate(24), Device(), FLOAT32, (2, 3))
    session.view(made)[:] = struct.pack("<6f", *range(6))
    return Value(NDARRAY, made)


def _fill(session: Session, arguments: List[Value]) -> Value:
    """Fills a tensor of float32 with a number; writes where the byte offset says."""
    tensor, number = arguments[0].content, arguments[1].content
    session.view(tensor)[:] = struct.pack("<f", number) * (tensor.nbytes // 4)
    return NONE


def _codes_of(_: Session, arguments: List[Value]) -> Value:
    """How its arguments were coded."""
    return text(",".join(str(code) for code in _codes(arguments)))


def _echo(session: Session, arguments: List[Value]) -> Value:
    """Its first argument."""
    code, content = arguments[0]
    if code == TENSOR:
        return Value(NDARRAY, content)
    if code in (MODULE, FUNCTION, OBJECT):
        return Value(code, session.object_of(content, code))
    return arguments[0]


def _object(_: Session, __: List[Value]) -> Value:
    return Value(OBJECT, object())


# What every server has


def _upload(session: Session, arguments: List[Value]) -> Value:
    name, content = _expect("tvm.rpc.server.upload", arguments, STR, (STR, BYTES))
    session.files[name] = content.encode() if isinstance(content, str) else content
    return NONE


def _download(session: Session, arguments: List[Value]) -> Value:
    (name,) = _expect("tvm.rpc.server.download", arguments, STR)
    if name not in session.files:
        raise CheckFailedError(f"Check failed: (!fs.fail()) is false: Cannot open /tmp/x/{name}")
    return Value(BYTES, session.files[name])


def _remove(session: Session, arguments: List[Value]) -> Value:
    (name,) = _expect("tvm.rpc.server.remove", arguments, STR)
    session.files.pop(name, None)
    return NONE


def _load_module(session: Session, arguments: List[Value]) -> Value:
    (name,) = _expect("tvm.rpc.server.load_module", arguments, STR)
    if name not in session.files:
        raise ValueError(f"cannot find file /tmp/x/{name}")
    return Value(MODULE, Module(name.partition(".")[0]))


def _download_linked(session: Session, arguments: List[Value]) -> Value:
    (name,) = _expect("tvm.rpc.server.download_linked_module", arguments, STR)
    if not name.endswith(".so"):
        raise RuntimeError(f"Do not know how to link {name}")
    return Value(BYTES, session.files[name])


def _module_function(session: Session, arguments: List[Value]) -> Value:
    module, name, imports = _expect(
        "tvm.rpc.server.ModuleGetFunction", arguments, MODULE, STR, TRUTHS
    )
    found = session.object_of(module, MODULE).find(name, bool(imports))
    return Value(FUNCTION, found) if found else NONE


def _import_module(session: Session, arguments: List[Value]) -> Value:
    parent, child = _expect("tvm.rpc.server.ImportModule", arguments, MODULE, MODULE)
    session.object_of(parent, MODULE).imports.append(session.object_of(child, MODULE))
    return NONE


def _system_lib(_: Session, arguments: List[Value]) -> Value:
    _expect("runtime.SystemLib", arguments, *[STR] * len(arguments[:1]))
    return Value(MODULE, SYSTEM_LIB)


SYSTEM_LIB = Module("system")


def _time_evaluator(session: Session, arguments: List[Value]) -> Value:
    """The function that measures; each repeat takes one more microsecond."""
    count = session.server.evaluator_args
    wanted = [(NULL, MODULE), STR, *[INT] * (count - 3), STR]
    module, name, kind, _, number, repeat, *_ = _expect(
        "runtime.RPCTimeEvaluator", arguments, *wanted
    )
    if kind >= 128:
        raise RuleBrokenError(f"device type {kind}; masked ones do not travel")
    if arguments[0].code == MODULE:
        function = session.object_of(module, MODULE).find(name, False)
    else:
        function = session.server.functions.get(name)
    if function is None:
        raise CheckFailedError(f"Check failed: Cannot find {name} in the global registry")
    session.setup = arguments

    def measure(session: Session, arguments: List[Value]) -> Value:
        for _ in range(1 + number * repeat):
            function(session, arguments)
        return Value(BYTES, struct.pack(f"<{repeat}d", *((at + 1) * 1e-6 for at in range(repeat))))

    return Value(FUNCTION, measure)


def _wait(session: Session, _: List[Value]) -> Value:
    """Until the session's time is up, or the server closes."""
    session.server.closing.wait(session.remaining_s())
    session.remaining_s()
    return NONE


FUNCTIONS: Dict[str, Function] = {
    "rpc.test.addone": _add_one,
    "rpc.test.strcat": _strcat,
    "rpc.test.except": _except,
    "rpc.test.add_to_lhs": _add_to_lhs,
    "rpc.test.remote_array_func": _remote_array_func,
    "peer.tensor": _tensor,
    "peer.fill": _fill,
    "peer.codes": _codes_of,
    "peer.echo": _echo,
    "peer.object": _object,
    "peer.wait": _wait,
    "tvm.rpc.server.upload": _upload,
    "tvm.rpc.server.download": _download,
    "tvm.rpc.server.remove": _remove,
    "tvm.rpc.server.load_module": _load_module,
    "tvm.rpc.server.download_linked_module": _download_linked,
    "tvm.rpc.server.ModuleGetFunction": _module_function,
    "tvm.rpc.server.ImportModule": _import_module,
    "runtime.SystemLib": _system_lib,
    "runtime.RPCTimeEvaluator": _time_evaluator,
}
