"""One session of the scripted server: requests read strictly, done, and answered.

It accepts no connections: that is for the server, whose settings and complaints it uses.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from .functions import CheckFailedError
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
    NONE,
    NULL,
    OBJECT,
    OBJECTS_SINCE,
    POINTER,
    STR,
    TENSOR,
    Reader,
    Record,
    RuleBrokenError,
    Value,
    hexdump,
    integer,
    packet,
    sequence,
    text,
)

if TYPE_CHECKING:
    from .server import LegacyServer

MAGIC = 0xFF271
FRAMES = (
    "Stack trace:\n"
    '  File "/opt/tvm/python/tvm/_ffi/_ctypes/packed_func.py", line 81, in cfun\n'
    "    rv = local_pyfunc(*pyargs)\n"
)
STACK = (
    "Stack trace:\n"
    "  [bt] (0) /opt/tvm/build/libtvm_runtime.so(tvm::runtime::RPCEndpoint::EventHandler+0x1e)"
)


class SessionTimeoutError(Exception):
    """The session's time is up."""


class Session:
    """One connection, from its first byte to its last.

    Attributes:
        key: the client's, with its options.
        packets: what it sent, whole packets, in order.
        objects: what it still has handles of: handle to type code, object and count.
        memory: what it has allocated, by address.
        files: what was uploaded.
        streams: that were synchronised with, set or freed.
        setup: the arguments of the latest time evaluator.
        ended: how it ended; empty while it goes on.
        done: set when it has.
    """

    def __init__(self, server: LegacyServer, connection: socket.socket) -> None:
        self.server = server
        self.key = ""
        self.packets: List[bytes] = []
        self.objects: Dict[int, List[Any]] = {}
        self.memory: Dict[int, bytearray] = {}
        self.files: Dict[str, bytes] = {}
        self.streams: List[int] = []
        self.setup: List[Value] = []
        self.ended = ""
        self.done = threading.Event()
        self._connection = connection
        self._deadline: Optional[float] = None
        self._timeout_s = 0.0
        self._initialised = False
        self._given = iter(server.handles)
        self._next_handle = 0x55AB00001000
        self._next_address = 0x7F0000000000

    @property
    def codes(self) -> List[int]:
        """Of the packets it received."""
        return [struct.unpack_from("<i", packet, 8)[0] for packet in self.packets]

    def requests(self, code: int) -> List[bytes]:
        """The bodies of all requests of this code."""
        return [found[12:] for found, its in zip(self.packets, self.codes) if its == code]

    def sequences(self, code: int) -> List[List[Value]]:
        """The arguments of all requests of this code."""
        return [
            Reader(body, self._legal(), "a recorded request").sequence()
            for body in self.requests(code)
        ]

    def freed(self, code: int) -> List[int]:
        """The handles that were freed with this type code."""
        return [handle.content for handle, kind in self.sequences(10) if kind.content == code]

    def interrupt(self) -> None:
        """Ends its connection, from another thread."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """From hello to the end."""
        try:
            if self._hello():
                while self._one_packet():
                    pass
        except (RuleBrokenError, UnicodeDecodeError) as error:
            self.server.complaints.append(str(error))
            self.ended = "broken rule"
            self._die()
        except SessionTimeoutError:
            limit = f"{self._timeout_s}s"  # 2.0s: a float
            self.ended = "timeout"
            self._say(
                5,
                f"RPCSessionTimeoutError: Your {limit} session has expired, "
                'try to increase the "session_timeout" value.',
            )
        except OSError as error:
            self.ended = f"connection lost: {error}"
        finally:
            self._connection.close()
            self.done.set()

    def _die(self) -> None:
        """As a server whose endpoint is destroyed by an exception."""
        with contextlib.suppress(OSError):
            self._connection.sendall(packet(1))

    def _say(self, code: int, words: str) -> None:
        with contextlib.suppress(OSError):
            self._connection.sendall(packet(code, sequence([text(words)])))

    # The connection

    def _receive(self, nbytes: int) -> bytes:
        """Exactly so many; fewer only at the end of the stream."""
        found = bytearray()
        while len(found) < nbytes:
            self._connection.settimeout(self.remaining_s())
            try:
                piece = self._connection.recv(min(nbytes - len(found), 1 << 20))
            except socket.timeout:
                raise SessionTimeoutError from None
            if not piece:
                break
            found += piece
        return bytes(found)

    def remaining_s(self) -> Optional[float]:
        """Seconds until the session's deadline."""
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise SessionTimeoutError
        return left

    def _hello(self) -> bool:
        magic, length = self._receive(4), self._receive(4)
        if magic != struct.pack("<i", MAGIC) or len(length) < 4:
            raise RuleBrokenError(f"hello begins with {magic!r} {length!r}")
        self.key = self._receive(struct.unpack("<i", length)[0]).decode()
        words = self.key.split()
        if not words or words[0] != "client:" + self.server.key:
            self._connection.sendall(struct.pack("<i", MAGIC + 2))
            self.ended = "mismatch"
            return False
        for word in words[1:]:
            if word.startswith("-timeout="):
                self._timeout_s = float(word[len("-timeout=") :])
                self._deadline = time.monotonic() + self._timeout_s
        name = b"server:" + self.server.key.encode()
        self._connection.sendall(struct.pack("<2i", MAGIC, len(name)) + name)
        return True

    def _one_packet(self) -> bool:
        """Reads and answers it; whether the session goes on."""
        head = self._receive(8)
        if not head:
            self.ended = "closed"
            return False
        if len(head) < 8:
            raise RuleBrokenError(f"closed within a length: {head!r}")
        (length,) = struct.unpack("<Q", head)
        if not length:
            return True
        if not 4 <= length <= 1 << 30:
            raise RuleBrokenError(f"a packet of {length} bytes")
        body = self._receive(length)
        self.packets.append(head + body)
        if len(body) < length:
            raise RuleBrokenError(f"closed within a packet\n{hexdump(head + body)}")
        (code,) = struct.unpack_from("<i", body)
        if code == 1:
            if length != 4:
                raise RuleBrokenError(f"Shutdown with a body\n{hexdump(body)}")
            self.ended = "Shutdown"
            return False
        answer = self._answered(code, body[4:])
        self.server.closing.wait(self.server.answer_after_s)
        if not self.server.scattered:
            self._connection.sendall(answer)
            return True
        for at in range(len(answer)):
            self._connection.sendall(answer[at : at + 1])
        self._connection.sendall(bytes(8))
        return True

    def _answered(self, code: int, body: bytes) -> bytes:
        reader = Reader(body, self._legal(), f"request {code}")
        try:
            if code == 2:
                return self._init_server(reader)
            if not self._initialised:
                raise RuleBrokenError(f"request {code} before InitServer\n{hexdump(body)}")
            if code == 3:
                return packet(4, self._call(reader))
            if code == 6:
                return self._copy_from(reader)
            if code == 7:
                return self._copy_to(reader)
            return packet(4, sequence([self._syscall(code, reader)]))
        except (RuleBrokenError, SessionTimeoutError, OSError):
            raise
        except CheckFailedError as error:
            return packet(5, sequence([text(f"{error}\n{STACK}")]))
        except Exception as error:  # a function's, of whatever kind
            words = f"{type(error).__name__}: {error}\n{FRAMES}{STACK}"
            return packet(5, sequence([text(words if self.server.minor < 14 else "")]))

    def _legal(self) -> List[int]:
        codes = [INT, FLOAT, POINTER, NULL, DTYPE, DEVICE, TENSOR, MODULE, FUNCTION, STR, BYTES]
        codes += [OBJECT] if self.server.minor >= OBJECTS_SINCE else []
        return codes + ([BOOL] if self.server.minor >= BOOL_SINCE else [])

    def _init_server(self, reader: Reader) -> bytes:
        version = reader.take(*reader.unpack("Q"))
        constructor = reader.sequence()
        if self._initialised:
            raise CheckFailedError("Server has already been initialized")
        if version.decode() != self.server.version:
            raise CheckFailedError(
                "Client protocol version mismatch with the server "
                f"server protocol={self.server.version}, client protocol={version.decode()}"
            )
        if constructor and constructor != [text("rpc.LocalSession")]:
            name = constructor[0].content
            raise CheckFailedError(
                f"Check failed: (fconstructor) is false: Cannot find session constructor {name}"
            )
        self._initialised = True
        return packet(4, sequence([NONE]))

    # Objects

    def handle_of(self, code: int, thing: Any) -> int:
        """One more count for this object."""
        for handle, entry in self.objects.items():
            if entry[0] == code and entry[1] is thing:
                entry[2] += 1
                return handle
        handle = self._handle()
        self.objects[handle] = [code, thing, 1]
        return handle

    def object_of(self, handle: int, code: int) -> Any:
        """What it stands for."""
        entry = self.objects.get(handle)
        if entry is None or entry[0] != code:
            raise RuleBrokenError(f"handle {handle:#x} of type {code} is {entry}: a real one dies")
        return entry[1]

    def _handle(self) -> int:
        self._next_handle += 0x40
        return next(self._given, self._next_handle)

    def _free(self, handle: int, code: int) -> None:
        self.object_of(handle, code)
        self.objects[handle][2] -= 1
        if not self.objects[handle][2]:
            del self.objects[handle]

    def allocate(self, nbytes: int) -> int:
        """The address of new memory."""
        address = next(self._given, self._next_address)
        self._next_address += (nbytes + 127) // 64 * 64
        self.memory[address] = bytearray(nbytes)
        return address

    def view(self, tensor: Record, nbytes: Optional[int] = None) -> memoryview:
        """A tensor's memory."""
        nbytes = tensor.nbytes if nbytes is None else nbytes
        memory = self.memory.get(tensor.data)
        if memory is None or tensor.byte_offset + nbytes > len(memory):
            raise RuleBrokenError(
                f"{tensor} and {nbytes} bytes are not within memory: a real one dies"
            )
        return memoryview(memory)[tensor.byte_offset :][:nbytes]

    # Requests

    def _call(self, reader: Reader) -> bytes:
        (handle,) = reader.unpack("Q")
        arguments = reader.sequence()
        function = self.object_of(handle, FUNCTION)
        for code, content in arguments:
            if code in (MODULE, FUNCTION, OBJECT):
                self.object_of(content, code)
        result = function(self, arguments)
        if isinstance(result, bytes):
            return result
        kind = integer(result.code)
        if result.code in (MODULE, FUNCTION, OBJECT):
            return sequence([kind, Value(POINTER, self.handle_of(*result))])
        if result.code == NDARRAY:
            owner = Value(POINTER, self.handle_of(NDARRAY, result.content))
            return sequence([kind, Value(TENSOR, result.content), owner])
        return sequence([kind, result])

    def _copy_from(self, reader: Reader) -> bytes:
        tensor = reader.record()
        (nbytes,) = reader.unpack("Q")
        reader.end()
        return packet(8, bytes(self.view(tensor, nbytes)))

    def _copy_to(self, reader: Reader) -> bytes:
        tensor = reader.record()
        (nbytes,) = reader.unpack("Q")
        content = reader.take(nbytes)
        reader.end()
        self.view(tensor, nbytes)[:] = content
        return packet(4, sequence([NONE]))

    def _syscall(self, code: int, reader: Reader) -> Value:
        values = reader.sequence()
        wanted = _SYSCALLS.get(code)
        if wanted is None or (code == 21 and self.server.minor < OBJECTS_SINCE):
            raise RuleBrokenError(f"Unknown event {code}")
        codes = [value.code for value in values]
        if len(codes) != len(wanted) or any(c not in legal for c, legal in zip(codes, wanted)):
            raise reader.broken(f"request {code} with {values}, but {wanted} were due")
        name = _METHODS[code]
        return getattr(self, name)(*(value.content for value in values))

    def _get_global(self, name: str) -> Value:
        function = self.server.functions.get(name)
        return Value(POINTER, self.handle_of(FUNCTION, function) if function else 0)

    def _free_handle(self, handle: int, code: int) -> Value:
        self._free(handle, code)
        return NONE

    def _get_attr(self, device: Any, attribute: int) -> Value:
        if attribute == 0:
            return integer(int(device.kind == 1))
        self._available(device)
        return NONE

    def _available(self, *devices: Any) -> None:
        for device in devices:
            if device.kind != 1:
                raise CheckFailedError(
                    f"Check failed: (allow_missing) is false: Device API {device.kind}"
                )

    def _alloc(self, device: Any, nbytes: int, alignment: int, _: Any) -> Value:
        if nbytes < 0 or alignment < 1:
            raise RuleBrokenError(f"{nbytes} bytes aligned to {alignment}")
        self._available(device)
        return Value(POINTER, self.allocate(nbytes))

    def _alloc_with_scope(self, tensor: Record, scope: Optional[str]) -> Value:
        if tensor.data:
            raise RuleBrokenError(f"{tensor} has data, but shall get some")
        self._available(tensor.device)
        if scope not in (None, "global"):
            raise CheckFailedError(
                "Device does not support allocate data space with specified memory scope: "
                + str(scope)
            )
        return Value(POINTER, self.allocate(tensor.nbytes))

    def _free_data(self, _: Any, address: int) -> Value:
        if self.memory.pop(address, None) is None:
            raise RuleBrokenError(f"{address:#x} is not allocated: a real one dies")
        return NONE

    def _copy_among(self, source: Record, target: Record, _: int) -> Value:
        if source.nbytes != target.nbytes:
            raise CheckFailedError("Check failed: from_size == to_size")
        self._available(source.device, target.device)
        self.view(target)[:] = bytes(self.view(source))
        return NONE

    def _create_stream(self, device: Any) -> Value:
        self._available(device)
        return Value(POINTER, 0)

    def _on_stream(self, device: Any, stream: int) -> Value:
        self._available(device)
        self.streams.append(stream)
        return NONE

    def _on_device(self, device: Any) -> Value:
        self._available(device)
        return NONE


_SYSCALLS: Dict[int, Tuple[Tuple[int, ...], ...]] = {
    9: ((STR,),),
    10: ((POINTER,), (INT,)),
    11: ((DEVICE,),),
    12: ((DEVICE,), (INT,)),
    13: ((DEVICE,), (INT,), (INT,), (DTYPE,)),
    14: ((DEVICE,), (POINTER,)),
    15: ((DEVICE,), (POINTER,)),
    16: ((TENSOR,), (TENSOR,), (POINTER,)),
    17: ((TENSOR,), (NULL, STR)),
    18: ((DEVICE,),),
    19: ((DEVICE,), (POINTER,)),
    20: ((DEVICE,), (POINTER,)),
    21: ((DEVICE,),),
}
"""The codes that each argument of a request may have."""

_METHODS = {
    9: "_get_global",
    10: "_free_handle",
    11: "_on_device",
    12: "_get_attr",
    13: "_alloc",
    14: "_free_data",
    15: "_on_stream",
    16: "_copy_among",
    17: "_alloc_with_scope",
    18: "_create_stream",
    19: "_on_stream",
    20: "_on_stream",
    21: "_create_stream",
}
