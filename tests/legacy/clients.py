"""Clients over plain sockets, of TVM 0.8 to 0.20 and of 0.27. Shares no code with the package."""

from __future__ import annotations

import socket
import struct
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from .sequences import (
    BOOL,
    BOOL_SINCE,
    BYTES,
    DEVICE,
    DTYPE,
    FLOAT,
    FUNCTION,
    INT,
    MODULE,
    NDARRAY,
    NULL,
    OBJECT,
    OBJECTS_SINCE,
    POINTER,
    STR,
    TENSOR,
    Device,
    DType,
    Reader,
    Record,
    RuleBrokenError,
    Value,
    hexdump,
    integer,
    packet,
    record,
    sequence,
    text,
)

MAGIC = 0xFF271
CPU = Device(1, 0)

Place = Union[int, socket.socket]


class RemoteRaisedError(Exception):
    """An Exception packet; its text is the argument."""


class RefusedError(Exception):
    """The handshake was answered with another code; it is the argument."""


class PeerClosedError(Exception):
    """The server closed, or said kShutdown, where an answer was due."""


class Connection:
    """Packets over a socket, and a transcript of them.

    Args:
        port: of the server; or a socket that is connected already, on which no hello is said.
        key: the match key.
        options: words behind it, e.g. ``-timeout=2``.
        timeout_s: how long any answer may take.
        host: of the server.

    Attributes:
        transcript: everything that went over, in order, with ``>`` (sent) or ``<`` in front.
        server_key: what the server said in its hello.
    """

    def __init__(self, port: Place, key: str, options: str, timeout_s: float, host: str) -> None:
        self.transcript: List[Tuple[str, bytes]] = []
        self.server_key = ""
        if isinstance(port, socket.socket):
            port.settimeout(timeout_s)
            self._socket = port
            return
        self._socket = socket.create_connection((host, port), timeout_s)
        try:
            self.server_key = self._hello(" ".join(["client:" + key, *options.split()]).encode())
        except BaseException:
            self._socket.close()
            raise

    def _hello(self, key: bytes) -> str:
        self.send(struct.pack("<i", MAGIC))  # two sends, as TVM does it
        self.send(struct.pack("<i", len(key)) + key)
        reply = self.receive(4)
        if struct.unpack("<i", reply) != (MAGIC,):
            raise RefusedError(struct.unpack("<i", reply)[0])
        length = self.receive(4)
        return self.receive(struct.unpack("<i", length)[0]).decode()

    def send(self, content: bytes) -> None:
        """Bytes as they are."""
        self.transcript.append((">", content))
        self._socket.sendall(content)

    def receive(self, nbytes: int) -> bytes:
        """Exactly so many."""
        found = bytearray()
        while len(found) < nbytes:
            try:
                piece = self._socket.recv(nbytes - len(found))
            except ConnectionError:
                piece = b""
            if not piece:
                raise PeerClosedError(f"after {len(found)} of {nbytes} bytes: {found.hex(' ')}")
            found += piece
        self.transcript.append(("<", bytes(found)))
        return bytes(found)

    def answer(self) -> Tuple[int, bytes]:
        """Code and body of the next packet; empty ones are skipped."""
        length = 0
        while not length:
            (length,) = struct.unpack("<Q", self.receive(8))
            if length >= 1 << 32:
                raise RuleBrokenError(f"a packet of {length} bytes")
        content = self.receive(length)
        if length < 4:
            raise RuleBrokenError(f"a packet without a code\n{hexdump(content)}")
        return struct.unpack_from("<i", content)[0], content[4:]

    def ask(self, code: int, body: bytes) -> bytes:
        """Sends a request; the body of the Return.

        Raises:
            RemoteRaisedError: an Exception came instead.
            PeerClosedError: a Shutdown or the end came instead.
        """
        self.send(packet(code, body))
        return self.returned(4)

    def returned(self, wanted: int) -> bytes:
        """The body of the next packet, which has this code, Return or CopyAck."""
        code, body = self.answer()
        if code == 5:
            raise RemoteRaisedError(self.exception_text(body))
        if code == 1:
            raise PeerClosedError("kShutdown")
        if code != wanted:
            raise RuleBrokenError(f"code {code} where {wanted} was due\n{hexdump(body)}")
        return body

    def exception_text(self, body: bytes) -> str:
        """The text of an Exception packet."""
        raise NotImplementedError

    def shutdown(self) -> None:
        """Ends the session as TVM does, and waits until the server has closed."""
        self.send(packet(1))
        rest = self._socket.recv(1)
        if rest:
            raise RuleBrokenError(f"{rest!r} after Shutdown, to which there is no answer")
        self.close()

    def close(self) -> None:
        """Without a word."""
        self._socket.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LegacyClient(Connection):
    """A client of TVM 0.8 to 0.20; what its server must not answer is a `RuleBrokenError`.

    Args:
        port: see `Connection`, as all others.
        minor: which TVM it is: 13 for 0.13.
        init: whether it sends InitServer at once.
        constructor: the session constructor's name and arguments.
    """

    def __init__(
        self,
        port: Place,
        key: str = "",
        options: str = "",
        *,
        minor: int = 13,
        init: bool = True,
        constructor: Sequence[Value] = (),
        timeout_s: float = 10.0,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(port, key, options, timeout_s, host)
        self.minor = minor
        if init:
            try:
                self.init_server(constructor)
            except BaseException:
                self.close()
                raise

    # Requests

    def init_server(self, constructor: Sequence[Value] = (), version: bytes = b"0.8.0") -> None:
        """InitServer; its answer is one null, or nothing."""
        body = struct.pack("<Q", len(version)) + version + sequence(constructor)
        self._void(self.ask(2, body), "the answer to InitServer", or_nothing=True)

    def get_function(self, name: str) -> int:
        """Its handle, 0 if there is none."""
        return self._handle(self.syscall(9, text(name)))

    def call(self, handle: int, *arguments: Value) -> Value:
        """The result: kind and content."""
        body = self.ask(3, struct.pack("<Q", handle) + sequence(arguments))
        return self._result(self._values(body, "a result"), body)

    def call_name(self, name: str, *arguments: Value) -> Value:
        """Looks a function up, calls it and frees it."""
        handle = self.get_function(name)
        assert handle, f"there is no {name}"
        try:
            result = self.call(handle, *arguments)
        except RemoteRaisedError:
            self.free_handle(handle, FUNCTION)
            raise
        self.free_handle(handle, FUNCTION)
        return result

    def free_handle(self, handle: int, code: int) -> None:
        """FreeHandle with the two arguments of those days."""
        self.void_syscall(10, Value(POINTER, handle), integer(code))

    def set_device(self, device: Device) -> None:
        """DevSetDevice."""
        self.void_syscall(11, Value(DEVICE, device))

    def get_attr(self, device: Device, attribute: int) -> Value:
        """DevGetAttr."""
        return self.syscall(12, Value(DEVICE, device), integer(attribute))

    def alloc_bytes(self, device: Device, nbytes: int, alignment: int, hint: DType) -> int:
        """DevAllocData, 13."""
        return self._handle(
            self.syscall(
                13, Value(DEVICE, device), integer(nbytes), integer(alignment), Value(DTYPE, hint)
            )
        )

    def alloc(
        self,
        shape: Tuple[int, ...],
        dtype: DType,
        device: Device = CPU,
        scope: Optional[str] = None,
    ) -> Record:
        """DevAllocDataWithScope, 17: the tensor."""
        wanted = Record(0, device, dtype, shape)
        where = Value(NULL) if scope is None else text(scope)
        return wanted._replace(data=self._handle(self.syscall(17, Value(TENSOR, wanted), where)))

    def free_data(self, device: Device, data: int) -> None:
        """DevFreeData."""
        self.void_syscall(14, Value(DEVICE, device), Value(POINTER, data))

    def sync(self, device: Device = CPU, stream: int = 0) -> None:
        """DevStreamSync."""
        self.void_syscall(15, Value(DEVICE, device), Value(POINTER, stream))

    def copy_among(self, source: Record, target: Record, stream: int = 0) -> None:
        """CopyAmongRemote."""
        self.void_syscall(16, Value(TENSOR, source), Value(TENSOR, target), Value(POINTER, stream))

    def create_stream(self, device: Device = CPU) -> int:
        """DevCreateStream."""
        return self._handle(self.syscall(18, Value(DEVICE, device)))

    def free_stream(self, device: Device, stream: int) -> None:
        """DevFreeStream."""
        self.void_syscall(19, Value(DEVICE, device), Value(POINTER, stream))

    def set_stream(self, device: Device, stream: int) -> None:
        """DevSetStream."""
        self.void_syscall(20, Value(DEVICE, device), Value(POINTER, stream))

    def current_stream(self, device: Device = CPU) -> int:
        """DevGetCurrentStream, since TVM 0.16."""
        assert self.minor >= OBJECTS_SINCE
        return self._handle(self.syscall(21, Value(DEVICE, device)))

    def copy_to(self, tensor: Record, content: bytes) -> None:
        """CopyToRemote."""
        body = self.ask(7, record(tensor) + struct.pack("<Q", len(content)) + content)
        self._void(body, "the answer to CopyToRemote", or_nothing=True)

    def copy_from(self, tensor: Record, nbytes: Optional[int] = None) -> bytes:
        """CopyFromRemote; the whole tensor if not told otherwise."""
        nbytes = tensor.nbytes if nbytes is None else nbytes
        self.send(packet(6, record(tensor) + struct.pack("<Q", nbytes)))
        content = self.returned(8)
        if len(content) != nbytes:
            raise RuleBrokenError(f"{len(content)} bytes in CopyAck, {nbytes} wanted")
        return content

    def syscall(self, code: int, *arguments: Value) -> Value:
        """A request from 9 on; exactly one value comes back."""
        body = self.ask(code, sequence(arguments))
        values = self._values(body, f"the answer to request {code}")
        if len(values) != 1:
            raise RuleBrokenError(f"{len(values)} values, but args.size() == 1\n{hexdump(body)}")
        return values[0]

    def void_syscall(self, code: int, *arguments: Value) -> None:
        """One that answers nothing but null."""
        value = self.syscall(code, *arguments)
        if value != Value(NULL):
            raise RuleBrokenError(f"{value} from request {code}, which has no result")

    # Answers

    def _legal(self) -> List[int]:
        codes = [INT, FLOAT, POINTER, NULL, DTYPE, DEVICE, TENSOR, STR, BYTES]
        return [*codes, BOOL] if self.minor >= BOOL_SINCE else codes

    def _values(self, body: bytes, what: str) -> List[Value]:
        return Reader(body, self._legal(), what).sequence()

    def _void(self, body: bytes, what: str, or_nothing: bool) -> None:
        values = self._values(body, what)
        if values != [Value(NULL)] and not (or_nothing and values == []):
            raise RuleBrokenError(f"{what} is {values} instead of one null\n{hexdump(body)}")

    @staticmethod
    def _handle(value: Value) -> int:
        if value.code == NULL:
            return 0
        if value.code != POINTER:
            raise RuleBrokenError(f"{value} where a handle is due")
        handle: int = value.content
        return handle

    def _result(self, values: List[Value], body: bytes) -> Value:
        """By the kind, which comes first, what comes after it."""
        if not values or values[0].code != INT:
            raise RuleBrokenError(f"a result that does not begin with its kind\n{hexdump(body)}")
        kind: int = values[0].content
        parts = values[1:]
        wanted = _PARTS.get(kind)
        if kind == OBJECT and self.minor < OBJECTS_SINCE:
            wanted = None
        if kind == BOOL and self.minor < BOOL_SINCE:
            wanted = None
        if wanted is None or [part.code for part in parts] != wanted:
            raise RuleBrokenError(f"a result of kind {kind} with {parts}\n{hexdump(body)}")
        if kind in (TENSOR, NDARRAY):
            return Value(NDARRAY, (parts[0].content, self._handle(parts[1])))
        return Value(kind, parts[0].content)

    def exception_text(self, body: bytes) -> str:
        """Exactly one text, code 11."""
        values = self._values(body, "an exception")
        if [value.code for value in values] != [STR]:
            raise RuleBrokenError(f"an exception of {values}\n{hexdump(body)}")
        found: str = values[0].content
        return found


_PARTS: Dict[int, List[int]] = {
    INT: [INT],
    FLOAT: [FLOAT],
    POINTER: [POINTER],
    NULL: [NULL],
    DTYPE: [DTYPE],
    DEVICE: [DEVICE],
    TENSOR: [TENSOR, POINTER],
    OBJECT: [POINTER],
    MODULE: [POINTER],
    FUNCTION: [POINTER],
    STR: [STR],
    BYTES: [BYTES],
    NDARRAY: [TENSOR, POINTER],
    BOOL: [BOOL],
}
"""The kinds of results, and the codes of the values that follow."""


_LAYOUTS = {0: "", 1: "q", 2: "q", 3: "d", 4: "Q"}
"""Of the values that `FfiClient` can read, besides texts."""


class FfiClient(Connection):
    """The least of a client of TVM 0.27: looks up, calls with int, float, str and None, frees."""

    def __init__(
        self,
        port: Place,
        key: str = "",
        options: str = "",
        *,
        timeout_s: float = 10.0,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(port, key, options, timeout_s, host)
        try:
            values = self._read(self.ask(2, struct.pack("<Q5si", 5, b"0.8.0", 0)))
            if values not in ([], [(0, None)]):
                raise RuleBrokenError(f"InitServer answered with {values}")
        except BaseException:
            self.close()
            raise

    def get_function(self, name: str) -> int:
        """Its handle, 0 if there is none."""
        [(index, content)] = self._read(self.ask(9, self._write(name)))
        if index not in (0, 4):
            raise RuleBrokenError(f"type {index} where a handle is due")
        return int(content or 0)

    def call(self, handle: int, *arguments: Any) -> Any:
        """The result, if it is an int, bool, float, text or None."""
        values = self._read(self.ask(3, struct.pack("<Q", handle) + self._write(*arguments)))
        if len(values) != 2 or values[0][0] != 1:
            raise RuleBrokenError(f"a result of {values}")
        index = values[1][0]
        if values[0][1] not in ([11, 65] if index == 8 else [index]):
            raise RuleBrokenError(f"kind {values[0][1]} for a value of type {index}")
        return values[1][1]

    def free_handle(self, handle: int) -> None:
        """FreeHandle."""
        body = self.ask(10, struct.pack("<iiQ", 1, 4, handle))
        if self._read(body) != [(0, None)]:
            raise RuleBrokenError(f"FreeHandle answered with\n{hexdump(body)}")

    def _write(self, *values: Any) -> bytes:
        written = struct.pack("<i", len(values))
        for value in values:
            if value is None:
                written += struct.pack("<i", 0)
            elif isinstance(value, bool):
                written += struct.pack("<iq", 2, value)
            elif isinstance(value, int):
                written += struct.pack("<iq", 1, value)
            elif isinstance(value, float):
                written += struct.pack("<id", 3, value)
            else:
                raw = value.encode()
                written += struct.pack("<iQ", 8, len(raw)) + raw
        return written

    def _read(self, body: bytes) -> List[Tuple[int, Any]]:
        reader = Reader(body, (), "an answer to the FFI client")
        values: List[Tuple[int, Any]] = []
        for _ in range(reader.unpack("i")[0]):
            (index,) = reader.unpack("i")
            if index == 8:
                values.append((index, reader.take(*reader.unpack("Q")).decode()))
                continue
            if index not in _LAYOUTS:
                raise reader.broken(f"a value of type {index}")
            found = reader.unpack(_LAYOUTS[index])
            values.append((index, bool(found[0]) if index == 2 else found[0] if found else None))
        reader.end()
        return values

    def exception_text(self, body: bytes) -> str:
        """Exactly one text, type 8."""
        [(index, content)] = self._read(body)
        if index != 8:
            raise RuleBrokenError(f"an exception of type {index}")
        return str(content)
