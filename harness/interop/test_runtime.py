"""docs/compatibility.md against the real ``tvm.runtime``: names, signatures, and what calls return.

The calls are made twice with the same arguments, of TVM and of ours, and the results compared.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import types
from typing import Any, Callable

import numpy as np
import pytest

from pytest_tvmrpc import runtime

from .compatibility import PAGE, Row, form_of, members, normal, public_members, tables
from .libraries import build_tvm_library

PAGES = tables(PAGE.read_text(encoding="utf-8"))
NAMES = [
    row
    for table in PAGES
    if table.section in ("Runtime functions", "Runtime classes")
    for row in table.rows
]
MEMBERS = members(PAGES)

NOT_OF_A_DEVICE = {"disco", "script_printer", "vm"}
"""Names of ``tvm.runtime`` that the page leaves out, and says so."""


def last(name: str) -> str:
    """``tvm.runtime.Device`` is ``Device``."""
    return name.rpartition(".")[2]


def found(dotted: str) -> Any:
    """What stands under a full name, wherever in it the modules end."""
    parts = dotted.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            home = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        return functools.reduce(getattr, parts[count:], home)
    raise AssertionError(dotted)


def in_tvm(row: Row) -> bool:
    """Whether TVM 0.27 has it."""
    return not (row.is_ours or row.is_old)


SHARED = {last(row.name): row for row in NAMES if in_tvm(row)}
SHARED_MEMBERS = {
    f"{owner}.{row.name.partition('(')[0]}": row
    for owner, rows in MEMBERS.items()
    for row in rows
    if owner in SHARED and in_tvm(row)
}


@pytest.fixture(name="sides", scope="module")
def _sides() -> list[Any]:
    """The names of the page: TVM's, and ours."""
    theirs = types.SimpleNamespace(**{name: found(row.name) for name, row in SHARED.items()})
    ours = types.SimpleNamespace(**{name: getattr(runtime, name) for name in SHARED})
    return [theirs, ours]


def test_every_name_is_listed(sides: list[Any]) -> None:
    """Each public name of ``tvm.runtime`` has a row, and so has each member of its classes."""
    import tvm

    public = {
        name
        for name, value in vars(tvm.runtime).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public - NOT_OF_A_DEVICE <= {last(row.name) for row in NAMES}
    theirs = sides[0]
    for owner in MEMBERS:
        if owner in SHARED:
            listed = {row.name.partition("(")[0] for row in MEMBERS[owner]}
            assert set(public_members(getattr(theirs, owner))) <= listed, owner


@pytest.mark.parametrize("name", sorted(SHARED))
def test_signatures(name: str, sides: list[Any]) -> None:
    """TVM's functions take what the row says; what a class takes, its constructor does not tell."""
    row = SHARED[name]
    value = getattr(sides[0], name)
    if not inspect.isclass(value):
        expected = row.of_tvm or row.cells[1].strip("`")
        assert form_of(name, value) == normal(expected)


@pytest.mark.parametrize("name", sorted(SHARED_MEMBERS))
def test_members(name: str, sides: list[Any]) -> None:
    """TVM's classes have the members of the rows, with their parameters."""
    row = SHARED_MEMBERS[name]
    owner, _, member = name.partition(".")
    value = getattr(getattr(sides[0], owner), member, None)
    if member in public_members(getattr(sides[0], owner)):
        assert form_of(member, value) == normal(row.of_tvm or row.name)
    else:  # an attribute that only its objects have
        assert row.name == member


Call = Callable[..., Any]
CALLS: dict[str, Call] = {}
"""For each name: a function of either side's names, which returns what to compare."""


def calls(names: str) -> Callable[[Call], Call]:
    """Registers what is called for some names."""

    def register(call: Call) -> Call:
        for name in names.split():
            CALLS[name] = functools.partial(call, member=name.partition(".")[2] or name)
        return call

    return register


def raises(call: Callable[[], Any]) -> bool:
    """Whether a call is refused, however."""
    try:
        call()
    except Exception:  # the kind is in the table
        return True
    return False


def outcome(call: Call, side: Any) -> Any:
    """What a call returns, or the kind of what it raises."""
    try:
        return call(side)
    except Exception as error:  # whatever it is, both have to raise it
        return f"raises {type(error).__name__}"


@calls("register_global_func get_global_func list_global_func_names remove_global_func")
def registry(r: Any, member: str) -> Any:
    def add(one: int, other: int) -> int:
        return one + other

    results = [r.get_global_func("interop.add", allow_missing=True)]
    try:
        results += [r.register_global_func("interop.add", add)(1, 2)]
        results += [r.get_global_func("interop.add")(2, 3)]
        results += [raises(lambda: r.register_global_func("interop.add", add))]
        r.register_global_func("interop.add", lambda one, other: one - other, override=True)
        results += [r.get_global_func("interop.add")(2, 3)]
        results += ["interop.add" in r.list_global_func_names()]
    finally:
        r.remove_global_func("interop.add")
    results += ["interop.add" in r.list_global_func_names()]
    results += [outcome(lambda r: r.get_global_func("interop.add"), r)]
    return [*results, outcome(lambda r: r.remove_global_func("interop.add"), r)]


@calls("num_threads")
def threads(r: Any, member: str) -> Any:
    return r.num_threads() >= 1


@calls("enabled")
def enabled(r: Any, member: str) -> Any:
    names = ["cpu", "llvm", "rpc", "cuda", "gpu", "opencl", "cl", "metal", "mtl", "vulkan", "rocm"]
    results = [r.enabled(name) for name in [*names, "hexagon", {"kind": "llvm"}]]
    return [*results, raises(lambda: r.enabled("nonsense")), raises(lambda: r.enabled(5))]


CONSTANTS: list[Any] = [
    *((3,), (3.5,), (True,), (2**31,), (-(2**31),), (1e39,), (float("inf"),)),
    *((3, "float32"), (3.0, "int32"), (3, "int8"), (7, "int4"), (2**64 - 1, "uint64")),
    *((1.5, "bfloat16"), (448, "float8_e4m3fn"), (6, "float4_e2m1fn"), (0, "bool")),
    *((np.float32(1.5),), (np.int64(4),), (np.float16(2),), (3, None), (True, "int32")),
]
REFUSED: list[Any] = [
    *((2**63,), (300, "int8"), (-1, "uint8"), (300, "uint8"), (3, "bool"), (9, "int4")),
    *((70000.0, "float16"), (1e300, "float32"), (500, "float8_e4m3fn"), (7, "float4_e2m1fn")),
    *((1, "handle"), (3, "nope"), ("x",), (None,), ([1],), (b"a",), (3j,)),
]


@calls("const")
def const(r: Any, member: str) -> Any:
    made = [r.const(*arguments) for arguments in CONSTANTS]
    texts = [one.script() for one in made if abs(one.value) < 1e38]
    values = [float(one.value) for one in made]
    kinds = [type(one).__name__ for one in made]
    return [texts, values, kinds, [raises(lambda a=a: r.const(*a)) for a in REFUSED]]


@calls("Scriptable Scriptable.script Scriptable.show")
def scripts(r: Any, member: str) -> Any:
    one = r.const(3, "int8")
    return [isinstance(one, r.Scriptable), one.script()]


PAIRS: list[Any] = [
    *(([1, 2, 3], [1, 2, 4]), ({"a": 1, "b": 2}, {"a": 1, "b": 3}), ("a", "b"), ([1], {"a": 1})),
    *(({"a": [1, {"x": 2}]}, {"a": [1, {"x": 3}]}), (1, 1.0), (1, True), (0.0, -0.0), (None, 0)),
    *((float("nan"), float("nan")), ([1, 2], (1, 2)), (b"a", b"a"), (b"a", "a"), (None, None)),
    *(({1: 2, "a": 3}, {"a": 3, 1: 2}), ([], []), ({}, []), ("long " * 9, "long " * 9)),
]
UNEVEN: list[Any] = [([1, 2], [1, 2, 3]), ([1, 2], [1]), ({"a": 1}, {"a": 1, "b": 1}), ({1: 2}, {})]
ELEMENTS = [[1.0, 2.0], [1.0, 3.0], [[1.0, 2.0]], [1.0, float("nan")], [0.0], [-0.0]]


@calls("structural_equal get_first_structural_mismatch assert_structural_equal")
def structural(r: Any, member: str) -> Any:
    tensors = [r.tensor(np.array(elements, "float32")) for elements in ELEMENTS]
    pairs = [(one, r.tensor(other)) for one in tensors for other in tensors]
    pairs += [(tensors[0], r.tensor(np.array(ELEMENTS[0], "float64"))), (r.cpu(0), r.cpu(1))]
    pairs += [*PAIRS, *([[pair[0], one], [pair[1], one]] for pair in PAIRS for one in tensors[:1])]
    equal = [r.structural_equal(*pair) for pair in (*pairs, *UNEVEN)]
    skipped = [r.structural_equal(*pair, skip_tensor_content=True) for pair in pairs]
    found = [r.get_first_structural_mismatch(*pair) for pair in pairs]
    refused = [raises(lambda pair=pair: r.assert_structural_equal(*pair)) for pair in PAIRS]
    return [equal, skipped, [one and tuple(map(str, one)) for one in found], refused]


@calls("device")
def device(r: Any, member: str) -> Any:
    texts = ["cpu", "cpu:1", "cuda", "opencl:2", "ext_dev", "metal", "vulkan", "rocm"]
    made = [r.device(text) for text in texts] + [r.device("cuda", 3), r.device(1, 2)]
    return [(one.dlpack_device_type(), one.index) for one in made]


@calls("cpu cuda opencl vulkan metal vpi rocm ext_dev")
def device_of_a_kind(r: Any, member: str) -> Any:
    make = getattr(r, member)
    return [(one.dlpack_device_type(), one.index) for one in (make(), make(2))]


@calls("Device Device.index Device.dlpack_device_type")
def device_class(r: Any, member: str) -> Any:
    one = r.cpu(1)
    return [isinstance(one, r.Device), one.index, one.dlpack_device_type(), one == r.cpu(1)]


@calls(
    "Device.exist Device.max_threads_per_block Device.warp_size Device.compute_version "
    "Device.max_shared_memory_per_block Device.device_name Device.max_clock_rate "
    "Device.multi_processor_count Device.api_version "
    "Device.driver_version Device.l2_cache_size_bytes Device.available_global_memory"
)
def device_attribute(r: Any, member: str) -> Any:
    return [getattr(r.cpu(0), member), r.cuda(0).exist, r.vulkan(0).exist]


@calls("Device.max_thread_dimensions")
def dimensions_of_a_device(r: Any, member: str) -> Any:
    found = outcome(lambda r: r.cpu(0).max_thread_dimensions, r)
    return None if found == "raises TypeError" else found  # TVM reads None as JSON


@calls("Device.total_global_memory")
def memory_of_a_device(r: Any, member: str) -> Any:
    return r.cpu(0).total_global_memory


@calls("Device.texture_spatial_limit")
def texture_limit(r: Any, member: str) -> Any:
    return r.cpu(0).texture_spatial_limit()


@calls("Device.create_raw_stream Device.set_raw_stream Device.free_raw_stream Device.sync")
def streams(r: Any, member: str) -> Any:
    one = r.cpu(0)
    stream = one.create_raw_stream()
    one.set_raw_stream(stream)
    one.sync(stream)
    one.sync()
    one.free_raw_stream(stream)
    return [stream is None or isinstance(stream, int)]


ARRAY = np.arange(6, dtype="float32").reshape(2, 3)


@calls("tensor Tensor Tensor.numpy Tensor.shape Tensor.dtype Tensor.device")
def tensor(r: Any, member: str) -> Any:
    made = [r.tensor(ARRAY), r.tensor([1, 2]), r.tensor(3.5), r.tensor(ARRAY.T, r.cpu(0))]
    made += [r.tensor(made[0])]
    return [
        [one.numpy().tolist(), tuple(one.shape), str(one.dtype), one.device.index]
        for one in made
        if isinstance(one, r.Tensor)
    ]


@calls("empty")
def empty(r: Any, member: str) -> Any:
    made = [r.empty((2, 3)), r.empty((0,), "int8"), r.empty((), "float64", r.cpu(0))]
    return [(tuple(one.shape), str(one.dtype)) for one in made]


@calls("from_dlpack")
def from_dlpack(r: Any, member: str) -> Any:
    source = r.tensor(ARRAY)
    shared = r.from_dlpack(source)
    source.copyfrom(ARRAY + 1)
    return [shared.numpy().tolist(), str(shared.dtype)]


@calls("Tensor.copyfrom Tensor.copyto Tensor.same_as")
def copies(r: Any, member: str) -> Any:
    source, target = r.tensor(ARRAY), r.empty((2, 3))
    target.copyfrom(ARRAY + 1)
    results = [target.numpy().tolist(), source.copyto(target).numpy().tolist()]
    results += [source.copyto(r.cpu(0)).numpy().tolist(), source.same_as(source)]
    results += [source.same_as(target)]
    return [*results, outcome(lambda r: target.copyfrom(np.zeros(4, "float32")), r)]


@calls("DataType DataType.bits DataType.lanes DataType.itemsize")
def data_type(r: Any, member: str) -> Any:
    texts = ["float32", "int8x4", "bool", "bfloat16", "handle", "float8_e4m3fn", "int4x2"]
    made = [r.DataType(text) for text in texts]
    return [(str(one), one.bits, one.lanes, one.itemsize, one == r.DataType(one)) for one in made]


CODES = [row.name for row in MEMBERS["DataTypeCode"] if in_tvm(row)]


@calls("DataTypeCode " + " ".join(f"DataTypeCode.{name}" for name in CODES))
def type_code(r: Any, member: str) -> Any:
    return [int(getattr(r.DataTypeCode, name)) for name in CODES]


def plain(value: Any) -> Any:
    """A value with its class by name, and what is in it."""
    kind = type(
        value
    ).__name__  # of long text in a container, TVM makes another class than of short
    kind = {"Bytes": "bytes", "String": "str", "Function": "PackedFunc"}.get(kind, kind)
    if kind == "Map":
        return kind, [(plain(key), plain(one)) for key, one in value.items()]
    if kind in ("Array", "list", "tuple"):
        return kind, [plain(one) for one in value]
    if kind == "Tensor":
        return kind, value.numpy().tolist()
    if kind == "PackedFunc":
        return kind, value(3)
    return kind, str(value)


CONVERTED: list[Any] = [
    *(None, True, 5, 2.5, "text", "a long text of an object", b"bytes", bytearray(b"b")),
    *([1, "x", [None]], (1, 2.5), {"a": [1], 2: {"b": b"c"}}, {}, [], np.float32(2), np.int64(3)),
    *(np.arange(4), lambda x: x + 1, "a\0b", [float("nan"), float("inf"), -0.0]),
    {number: str(number) for number in range(50)},
]


@calls("convert")
def convert(r: Any, member: str) -> Any:
    return [type(r.convert("text")).__name__, *(plain(r.convert(value)) for value in CONVERTED)]


@calls("ObjectConvertible ObjectConvertible.asobject")
def convertible(r: Any, member: str) -> Any:
    class Pair(r.ObjectConvertible):  # type: ignore[misc]  # a class of either side
        def asobject(self) -> Any:
            return r.Array([1, 2])

    refused = outcome(lambda r: r.ObjectConvertible().asobject(), r)
    return [plain(r.convert(Pair())), plain(r.Array([Pair()])), refused]


@calls("Object Object.same_as Object.is_ Object.id_ Module.same_as Tensor.is_ Tensor.id_")
def objects(r: Any, member: str) -> Any:
    array, tensor = r.Array([1]), r.tensor(ARRAY)
    module = r.load_module(str(r.kernels))
    results = [isinstance(one, r.Object) for one in (array, module, 5, "x")]
    results += [one.same_as(one) for one in (array, tensor, module)]
    results += [
        tensor.is_(tensor),
        tensor.id_ == tensor.id_,
        array.is_(array),
        array.is_(r.Array([1])),
        array.id_ == array.id_,
    ]
    results += [array.id_ == r.Array([1]).id_, r.Array([array])[0].id_ == array.id_]
    return [*results, array.same_as(r.Array([1])), tensor == r.tensor(ARRAY), module.same_as(array)]


@calls("ShapeTuple")
def shapes(r: Any, member: str) -> Any:
    made = r.ShapeTuple([2, 3, -1])
    results = [made == (2, 3, -1), made[0], made[1:], hash(made) == hash((2, 3, -1)), len(made)]
    results += [raises(lambda given=given: r.ShapeTuple(given)) for given in ("12", (1.5,), 5)]
    return [*results, raises(lambda: r.ShapeTuple((2**63,)))]


@calls("Array")
def arrays(r: Any, member: str) -> Any:
    made = r.Array([1, "x", None, [2, (3,)], {"k": b"v"}, 2.5, True])
    results = [plain(made), len(made), plain(made[-1]), plain(made[1:3]), plain(made[::-2])]
    results += [made == list(made), r.Array([1]) == (1,), r.Array([1]) == [True], made == "x"]
    results += [r.Array([1]) == [1.0], r.Array([float("nan")]) == [float("nan")], 1 in made]
    results += [hash(r.Array([1, [2]])) == hash(r.Array([1, [2]])), [2, [3]] in made, bool(made)]
    results += [plain(made + [1]), plain([1] + made)]  # noqa: RUF005  (its own operator)
    results += [made.index("x"), made.count(None)]
    results += [outcome(lambda r: made[7], r), outcome(lambda r: made["0"], r)]
    return [*results, outcome(lambda r: made.index("nothing"), r), raises(lambda: r.Array(5))]


@calls("Map")
def maps(r: Any, member: str) -> Any:
    made = r.Map({"a": 1, 2: [3], None: "x", b"k": 2.5, "a key that is long": {"in": 0}})
    results = [plain(made), len(made), list(made), plain(made[2]), made.get("z", 7)]
    results += [[plain(one) for one in made.values()], 2.0 in made, None in made, "z" in made]
    results += [made == r.Map(dict(made.items())), r.Map({1: 1}) == r.Map({1: 2})]
    results += [hash(r.Map({1: 2, 3: 4})) == hash(r.Map({3: 4, 1: 2})), bool(r.Map({}))]
    return [*results, outcome(lambda r: made["z"], r), raises(lambda: r.Map([(1, 2)]))]


@calls(
    "DataType.from_dlpack_data_type DataType.is_bool DataType.is_dtype DataType.is_float "
    "DataType.is_handle DataType.is_integer DataType.type_code DataType.with_lanes"
)
def kinds_of_data_types(r: Any, member: str) -> Any:
    texts = ["float32", "int8", "uint64", "bool", "bfloat16", "handle", "float8_e5m2", "int32x4"]
    made = [r.DataType(text) for text in texts]
    results: list[Any] = [
        [one.is_bool, one.is_float, one.is_handle, one.is_integer, int(one.type_code)]
        for one in made
    ]
    results += [str(one.with_lanes(4)) for one in made[:4]]
    results += [str(r.DataType.from_dlpack_data_type(triple)) for triple in ((2, 32, 1), (0, 8, 4))]
    results += [r.DataType.is_dtype(text) for text in ("float32", "nonsense", "int8x4")]
    results += [np.dtype(one).name for one in made[:3]]
    return results


@calls("Device.type device_from_target")
def kinds_of_devices(r: Any, member: str) -> Any:
    results: list[Any] = [one.type for one in (r.cpu(), r.cuda(), r.ext_dev(), r.opencl())]
    return [*results, r.device_from_target({"kind": "llvm"}) == r.cpu(0)]


@calls("Tensor.data_ptr Tensor.is_contiguous Tensor.ndim Tensor.numel Tensor.size Tensor.strides")
def form_of_a_tensor(r: Any, member: str) -> Any:
    made = [r.tensor(ARRAY), r.empty((0, 3), "int8"), r.tensor(np.float64(2)), r.empty((2, 1, 3))]
    results: list[Any] = [
        [one.ndim, one.numel(), one.is_contiguous(), list(one.strides)] for one in made
    ]
    return [*results, made[0].size(1), made[0].data_ptr() % 64, raises(lambda: made[0].size(2))]


@calls("save_param_dict load_param_dict")
def params(r: Any, member: str) -> Any:
    given = {"first": r.tensor(ARRAY), "second": r.tensor(np.arange(3, dtype="int64"))}
    saved = bytes(r.save_param_dict(given))
    loaded = r.load_param_dict(bytearray(saved))
    return [saved, [(name, loaded[name].numpy().tolist()) for name in sorted(loaded)]]


@calls("save_param_dict_to_file load_param_dict_from_file")
def param_files(r: Any, member: str) -> Any:
    path = r.folder / "params"
    r.save_param_dict_to_file({"only": r.tensor(ARRAY)}, str(path))
    loaded = r.load_param_dict_from_file(str(path))
    return [path.read_bytes(), loaded["only"].numpy().tolist()]


@calls(
    "load_module Module Module.get_function Module.implements_function Module.import_module "
    "Module.kind Module.entry_name"
)
def module(r: Any, member: str) -> Any:
    loaded = r.load_module(str(r.kernels))
    a, b = (np.linspace(0, 1, 4096, dtype="float32") for _ in range(2))
    result = r.empty((4096,))
    loaded["elementwise"](r.tensor(a), r.tensor(b), result)
    other = r.load_module(str(r.kernels))
    other.import_module(loaded)
    return [
        *(isinstance(loaded, r.Module), loaded.kind, loaded.entry_name),
        *(loaded.implements_function("elementwise"), loaded.implements_function("none")),
        outcome(lambda r: loaded.get_function("none"), r),
        outcome(lambda r: loaded[0], r),
        outcome(lambda r: r.load_module(str(r.folder / "none.so")), r)[:6],
        result.numpy().tolist(),
        other.get_function("matmul", query_imports=True) is not None,
    ]


@calls(
    "Module.clear_imports Module.imports Module.imports_ Module.inspect_source Module.is_ "
    "Module.id_ Module.is_runnable Module.is_binary_serializable Module.get_property_mask "
    "Module.is_compilation_exportable Module.get_function_doc Module.get_function_metadata "
    "Module.get_write_formats ModulePropertyMask load_static_library"
)
def what_a_module_is(r: Any, member: str) -> Any:
    loaded = r.load_module(str(r.kernels))
    static = r.load_static_library(str(r.objects), ["matmul"])
    results: list[Any] = [loaded.is_(loaded), loaded.is_(static), loaded.id_ == static.id_]
    results += [(kind.name, int(kind)) for kind in r.ModulePropertyMask]
    results += [set(static.get_write_formats()) <= {"o"}]  # TVM names none, but writes it
    for module in (loaded, static):
        mask = module.get_property_mask()
        results += [bool(mask & kind) for kind in r.ModulePropertyMask]
        results += [mask, module.is_runnable(), module.is_binary_serializable()]
        results += [module.is_compilation_exportable()]
        results += [module.get_function_doc("matmul"), module.get_function_metadata("matmul")]
        results += [raises(lambda module=module: module.inspect_source())]
    static.import_module(loaded)
    results += [len(static.imports), static.imports[0].kind, len(static.imports_)]
    static.clear_imports()
    return [*results, len(static.imports), raises(lambda: r.load_static_library("none.o", ["f"]))]


@calls("Module.write_to_file Module.export_library")
def files_of_a_module(r: Any, member: str) -> Any:
    static = r.load_static_library(str(r.objects), ["matmul"])
    static.write_to_file(str(r.folder / "copy.o"))
    static.export_library(str(r.folder / "made.so"))
    loaded = r.load_module(str(r.folder / "made.so"))
    return [
        (r.folder / "copy.o").read_bytes() == r.objects.read_bytes(),
        *(loaded.kind, loaded.implements_function("matmul")),
        raises(lambda: loaded.export_library(str(r.folder / "again.so"))),
    ]


@calls("system_lib")
def system_lib(r: Any, member: str) -> Any:
    found = r.system_lib()
    return [found.implements_function("no such function"), isinstance(found, r.Module)]


@calls("Executable Executable.jit Executable.export_library")
def executable(r: Any, member: str) -> Any:
    root = r.load_static_library(str(r.objects), ["matmul"])
    made = r.Executable(root)
    x, y, z = (r.tensor(np.ones(shape, "float32")) for shape in ((64, 48), (48, 32), (64, 32)))
    made["matmul"](x, y, z)
    linked = made.jit()
    library = r.folder / "exported.so"
    made.export_library(str(library))
    loaded = r.load_module(str(library))
    return [
        *(made.jit() is linked, linked is root, z.numpy()[0, 0].item(), library.is_file()),
        *(loaded.implements_function("matmul"), r.Executable(loaded).jit() is loaded),
    ]


@calls("Module.time_evaluator")
def time_evaluator(r: Any, member: str) -> Any:
    a, b, result = (r.tensor(np.zeros(4096, "float32")) for _ in range(3))
    loaded = r.load_module(str(r.kernels))
    evaluate = loaded.time_evaluator("elementwise", r.cpu(0), number=3, repeat=2)
    measured = evaluate(a, b, result)
    return [len(measured.results), 0 < measured.min <= measured.mean <= measured.max < 60]


@calls(
    "BenchmarkResult BenchmarkResult.max BenchmarkResult.mean BenchmarkResult.median "
    "BenchmarkResult.min"
)
def benchmark_result(r: Any, member: str) -> Any:
    one = r.BenchmarkResult((1e-3, 2.5e-3, 4e-3))
    return [str(one), one.max, one.mean, one.median, one.min]


@calls("BenchmarkResult.std BenchmarkResult.results")
def spread(r: Any, member: str) -> Any:
    one = r.BenchmarkResult((1.0, 2.0, 4.0))
    return [round(float(one.std), 12), list(one.results)]


def test_every_name_is_called() -> None:
    """Each name that both have is called here."""
    assert {*SHARED, *SHARED_MEMBERS} - set(CALLS) == set()


@pytest.fixture(name="objects", scope="module")
def _objects(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The kernels as an object file."""
    return build_tvm_library(tmp_path_factory.mktemp("objects"), "o")


@pytest.mark.parametrize("name", sorted(CALLS))
def test_calls(name: str, sides: list[Any], kernels: Any, objects: Any, tmp_path: Any) -> None:
    """The same call of TVM and of ours has the same result."""
    results = []
    for number, side in enumerate(sides):
        folder = tmp_path / str(number)
        folder.mkdir()
        results.append(
            CALLS[name](
                types.SimpleNamespace(**vars(side), kernels=kernels, objects=objects, folder=folder)
            )
        )
    assert results[1] == results[0]
