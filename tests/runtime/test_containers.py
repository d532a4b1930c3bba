from __future__ import annotations

import gc
import itertools
import random
import threading
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from pytest_tvmrpc import dlpack, runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import (
    Array,
    Map,
    Object,
    ShapeTuple,
    abi,
    container_cells,
    hashing,
    native,
    owned,
)
from pytest_tvmrpc.runtime.containers import FFIDict
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler

SOURCE = Path(__file__).parent / "containers.c"
BOTH_ONE = (1 << 32) | 1


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> LibraryModule:
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    return LibraryModule(compile_library(SOURCE, tmp_path_factory.mktemp("c") / "containers.so"))


@pytest.fixture(name="nothing_stays")
def _nothing_stays(library: LibraryModule) -> Any:
    """No object of either side is left when the test is over."""
    gc.collect()
    cells, blocks, alive = len(abi._cells), len(container_cells._blocks), library["alive"]()
    yield
    gc.collect()
    assert len(abi._cells) == cells
    assert len(container_cells._blocks) == blocks
    assert library["alive"]() == alive


VALUES: List[Any] = [
    *(None, True, False, 0, -(2**63), 2**63 - 1, 2.5, "", "short", "a text that does not fit"),
    *("a\0b", "größer", b"", b"\0\xff", b"bytes that do not fit", DataType("int8x4")),
    *(runtime.cpu(1), ShapeTuple((2, 3)), [], [1, ["x", {"k": [None]}]], {}, {"a": 1, 2: b"b"}),
]


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_elements_keep_their_value(library: LibraryModule, value: Any) -> None:
    """What goes into an array is read there by C and by Python, and comes back as it was."""
    array = Array([0, value])
    assert array == [0, value]
    assert array[1] == array[-1] == value
    assert library["element"](array, 1) == value
    assert library["echo"]([value])[0] == value
    assert value in array


@pytest.mark.usefixtures("nothing_stays")
def test_an_array_is_a_sequence(library: LibraryModule) -> None:
    """It is indexed as a list is; slices are lists; it is equal to what has equal elements."""
    array = Array(range(5))
    assert isinstance(array, Object)
    assert len(array) == 5
    assert [array[0], array[-5], array[4], array[-1]] == [0, 0, 4, 4]
    assert array[1:4] == [1, 2, 3]
    assert array[::-2] == [4, 2, 0]
    assert array[9:] == []
    assert list(array) == list(range(5))
    assert list(reversed(array)) == [4, 3, 2, 1, 0]
    assert 3 in array
    assert 7 not in array
    assert (array.index(3), array.index(3, -3), array.count(3)) == (3, 3, 1)
    more, before = array + [5], [-1] + array  # noqa: RUF005  (this is what is tested)
    assert type(more) is type(before) is Array
    assert more == (0, 1, 2, 3, 4, 5)
    assert before == [-1, 0, 1, 2, 3, 4]
    assert array == (0, 1, 2, 3, 4)
    assert array != [0, 1, 2, 3]
    assert array != "01234"
    assert not Array([])
    assert repr(Array([1, "a", [2.5]])) == "(1, 'a', (2.5,))"
    assert library["kind"](array) == 71
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"size: 5, got index {index}"):
            array[index]
    with pytest.raises(TypeError, match="indices must be integers or slices, not str"):
        array["0"]
    with pytest.raises(ValueError, match="7 is not in this Array"):
        array.index(7)
    with pytest.raises(TypeError):
        array[0] = 1  # type: ignore[index]


def test_elements_are_compared_by_type() -> None:
    """One, 1.0 and True are three values, as in TVM; NaN is itself. Equal ones have one hash."""
    array = Array([1])
    assert array == [1]
    assert array != [True]
    assert array != [1.0]
    assert True not in array
    assert Array([float("nan")]) == [float("nan")]
    assert hash(Array([1, [2.5, "x"]])) == hash(Array([1, Array([2.5, "x"])]))
    assert Map({"a": [1], "b": 2}) == {"b": 2, "a": [1]}
    assert hash(Map({"a": [1], "b": 2})) == hash(Map({"b": 2, "a": [1]}))
    assert Map({1: 1}) != {1: True}
    assert Map({1: 1}) != {True: 1}
    assert Map({1: 1}) != {1: 1, 2: 2}
    assert Map({1: 1}) != [1]
    assert {Array([1]): "found"}[Array([1])] == "found"


EQUAL = [
    *(1, 2.5, True, "x", b"x", None, 0.0, -0.0, runtime.cpu(1), DataType("int8")),
    *(np.int64(1), np.float64(2.5), np.bool_(True), runtime.const(1), runtime.const(2.5)),
    *((1, (2.5, "x")), (), ShapeTuple((1, 2)), dlpack.OpaquePointer(1), runtime.const(True)),
]


def test_what_is_equal_has_one_hash() -> None:
    """Of arrays and tuples of whatever elements; and equality goes both ways."""
    for one in EQUAL:
        for other in EQUAL:
            first, second = Array([one]), Array([other])
            assert (first == second) == (second == first) == (first == (other,))
            assert (first == second) == (other in first) == (first.count(other) == 1)
            assert (first == second) == (Map({0: one}) == Map({0: other}))
            if first == second:
                assert hash(first) == hash(second) == hash((other,))
                assert hash(Map({0: one})) == hash(Map({0: other}))
    nan = float("nan")
    assert Array([nan]) == Array([float("nan")])
    assert hash(Array([nan])) == hash(Array([float("nan")]))


@pytest.mark.parametrize(
    ("element", "value"),
    [
        *((1, np.int64(1)), (1, runtime.const(1)), (True, np.bool_(True)), (2.5, np.float32(2.5))),
        *((2.5, runtime.const(2.5)), (7, np.array(7)), (0.0, np.float64(0))),
    ],
    ids=itertools.count(),
)
def test_numbers_are_found_whatever_their_type(element: Any, value: Any) -> None:
    """A number of NumPy or of `const` is the plain one, in arrays and in maps, as key and value."""
    array = Array(["x", element])
    assert value in array
    assert array.index(value) == array.count(value) == 1
    assert array == ["x", value]
    assert value in Map({element: 1})
    assert Map({1: element}) == {1: value}
    for other in ("x", -0.0, 2**64, np.longdouble("0.1"), 1j, dlpack.OpaquePointer(1)):
        assert other not in Array([element])


def test_what_can_change_has_no_hash(library: LibraryModule) -> None:
    """Lists and dicts of compiled code are equal by their content, which is no key."""
    for made in (library["make_sequence"](75, 1), library["make_map"](76, 1, 2)):
        with pytest.raises(TypeError, match="unhashable type"):
            hash(made)
        with pytest.raises(TypeError, match="unhashable type"):
            hash(Array([made]))


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 16, 17, 1000])
def test_c_finds_the_keys_of_a_map(library: LibraryModule, count: int) -> None:
    """Of a small map by going through it, of a large one by the hash; their order is kept."""
    chance = random.Random(count)
    pairs: Dict[Any, Any] = {}
    while len(pairs) < count:
        kinds = [
            *(chance.randrange(100), chance.getrandbits(63), -chance.getrandbits(62)),
            *(chance.random(), f"k{chance.randrange(50)}", f"a key that is long {len(pairs)}"),
            *(b"%d" % chance.getrandbits(20), b"bytes of a key %d" % len(pairs), (None, 2**40)[0]),
        ]
        pairs[chance.choice(kinds)] = len(pairs)
    made = Map(pairs)
    assert library["is_small"](made) == (count < 4)
    assert list(made) == list(pairs)
    assert list(made.items()) == list(pairs.items())
    for key, value in pairs.items():
        assert made[key] == value
        assert library["value_of"](made, [key]) == value
    for missing in ("nothing", 2**62 + 1, b"nothing at all", -0.5, True):
        with pytest.raises(KeyError):
            library["value_of"](made, [missing])


def test_a_table_that_is_full_of_one_hash_grows() -> None:
    """Keys of one hash are a chain, which has to find free places; every key stays in it."""
    hashes = [7] * 200
    table = hashing.table_of(hashes, [bytes([number]) * 32 for number in range(200)])
    slots = [table.first]
    buffer = (abi.ctypes.c_char * len(table.blocks)).from_buffer_copy(table.blocks)
    for _ in range(199):
        address = abi.ctypes.addressof(buffer) + hashing.place(slots[-1])
        assert buffer[hashing.place(slots[-1])] == bytes([len(slots) - 1])
        slots.append(hashing.next_of(address))
    assert len(set(slots)) == 200
    assert slots[-1] == table.last


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("count", [0, 2, 5, 300])
def test_a_dict_is_asked_by_the_hash(count: int) -> None:
    """Each key of a dict of compiled code is found, and what is no key is not."""
    keys: List[Any] = [*range(count), *(f"a text that is long {number}" for number in range(count))]
    keys += [b"%d" % number for number in range(count)]
    made = Map({key: [number] for number, key in enumerate(keys)})
    abi.TVMFFIObject.from_address(made.address).type_index = 76
    read = native.object_at(76, made.address)
    assert isinstance(read, FFIDict)
    assert list(read) == list(read.keys()) == keys
    assert dict(read) == {key: [number] for number, key in enumerate(keys)}
    assert list(read.items()) == [(key, [number]) for number, key in enumerate(keys)]
    assert list(read.values()) == [[number] for number in range(len(keys))]
    for missing in (-1, count, "no such text", b"no such bytes", None, 0.0, True, made):
        assert missing not in read
        assert read.get(missing) is None
    abi.TVMFFIObject.from_address(made.address).type_index = 72


def test_keys_of_one_hash() -> None:
    """A chain is followed to its end; how far the next may be is not known for all."""
    hashes = [7] * 200
    table = hashing.table_of(hashes, [bytes([number]) * 32 for number in range(200)])
    buffer = (abi.ctypes.c_char * len(table.blocks)).from_buffer_copy(table.blocks)
    place = hashing.Place(abi.ctypes.addressof(buffer), table.slots, table.shift)
    found = hashing.with_hash(place, 7)
    assert found is not None
    first = [abi.ctypes.string_at(address, 1) for address in found]
    assert first == [bytes([number]) for number in range(200)]
    assert hashing.with_hash(place, 8) == []
    marks = [at for at in range(len(table.blocks)) if at % hashing._BLOCK_SIZE < 16]
    (home,) = [at for at in marks if table.blocks[at] < 0x80]
    buffer[home] = b"\x7e"
    assert hashing.with_hash(place, 7) is None


@pytest.mark.usefixtures("nothing_stays")
def test_arrays_nested_at_any_depth() -> None:
    """They are freed without a call for each level, of which there can be as many as wanted."""
    nested = Array([])
    for _ in range(3000):
        nested = Array([nested])
    again = Map({"a": nested})
    del nested
    assert len(again) == 1


@pytest.mark.usefixtures("nothing_stays")
def test_what_is_taken_out_while_a_list_is_read(library: LibraryModule) -> None:
    """An iterator over a list has its own references: C may drop the list's meanwhile."""
    listed = library["make_sequence"](75, ["a"], ["b"])
    elements = iter(listed)
    owned.drop_any(owned.words_at(listed._cell().data, 2)[1])
    listed._cell().size = 1
    assert list(elements) == [["a"], ["b"]]


@pytest.mark.usefixtures("nothing_stays")
def test_a_map_is_a_mapping(library: LibraryModule) -> None:
    """It is asked as a dict is."""
    made = Map({"a": 1, 2: [3], None: "x", b"k": 2.5, True: 0})
    assert isinstance(made, Object)
    assert len(made) == 5
    assert made["a"] == 1
    assert made[2] == [3]
    assert made[None] == "x"
    assert made.get("z", 9) == 9
    assert list(made.keys()) == ["a", 2, None, b"k", True]
    assert list(made.values()) == [1, [3], "x", 2.5, 0]
    assert "a" in made
    assert 1 not in made
    assert object() not in made
    assert repr(Map({"a": [1]})) == "{'a': (1,)}"
    assert library["kind"](made) == 72
    assert Map(made) == made
    assert not Map({})
    with pytest.raises(KeyError, match="'z'"):
        made["z"]
    with pytest.raises(TypeError, match="a Map is made of a dict or another mapping"):
        Map([("a", 1)])  # type: ignore[arg-type]


@pytest.mark.usefixtures("nothing_stays")
def test_containers_of_c(library: LibraryModule) -> None:
    """Those that compiled code makes are read where they are, whatever is in them."""
    array = library["make_sequence"](71, 1, ["a text that does not fit"], None, 2.5)
    assert type(array) is Array
    assert array == [1, ["a text that does not fit"], None, 2.5]
    assert array[1][0] == "a text that does not fit"
    assert library["echo"](array).same_as(array)
    made = library["make_map"](72, 1, [2], 3, None)
    assert type(made) is Map
    assert made == {1: [2], 3: None}
    listed = library["make_sequence"](75, 1, 2)
    assert (list(listed), repr(listed), listed == [1, 2], listed[-1]) == ([1, 2], "[1, 2]", True, 2)
    listed_map = library["make_map"](76, 5, 6)
    assert (dict(listed_map), repr(listed_map), listed_map[5]) == ({5: 6}, "{5: 6}", 6)
    assert library["make_sequence"](71) == []
    assert library["make_map"](72) == {}


@pytest.mark.usefixtures("nothing_stays")
def test_references_are_counted(library: LibraryModule) -> None:
    """Python has one reference for each object it holds, and an element one for its container."""
    inner = Array([1])
    assert library["counts"](inner) == BOTH_ONE
    outer = Array([inner, inner])
    assert library["counts"](inner) == BOTH_ONE + 2
    again = outer[0]
    assert again == inner
    assert again.same_as(inner)
    assert library["counts"](inner) == BOTH_ONE + 3
    del again, outer
    assert library["counts"](inner) == BOTH_ONE
    library["keep"](inner)
    del inner
    gc.collect()
    given = library["give"]()
    assert given == [1]
    assert library["counts"](given) == BOTH_ONE


@pytest.mark.usefixtures("nothing_stays")
def test_what_c_changes_is_what_is_freed(library: LibraryModule) -> None:
    """C++ changes an array in place that nobody else holds: what is in it at the end is freed."""
    array = Array([[1], "x"])
    library["replace_first"](array, [2])
    assert array == [[2], "x"]
    library["replace_first"](array, 3)
    assert array == [3, "x"]


@pytest.mark.usefixtures("nothing_stays")
def test_objects_on_several_threads(library: LibraryModule) -> None:
    """Nothing is lost or freed twice."""
    shared = Array([[1, "a text that is long"], {"a": [2]}])
    wrong: List[object] = []

    def work() -> None:
        for number in range(300):
            made = library["echo"]([shared, {"n": [number, shared[0]]}])
            if made[1]["n"][1] != shared[0] or made[1]["n"][0] != number:
                wrong.append(made)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert library["counts"](shared) == BOTH_ONE


@pytest.mark.usefixtures("nothing_stays")
def test_shapes(library: LibraryModule) -> None:
    """They go as objects and come as tuples."""
    assert library["product"](ShapeTuple((2, 3, 7))) == 42
    assert library["kind"](ShapeTuple(())) == 69
    found = library["make_shape"](3)
    assert type(found) is ShapeTuple
    assert found == (2, 3, -1)
    assert library["make_shape"](0) == ()


@pytest.mark.usefixtures("nothing_stays")
def test_objects_of_unknown_classes(library: LibraryModule) -> None:
    """They are references that can be compared and passed on."""
    made = library["make_object"](5000)
    assert isinstance(made, Object)
    assert made.type_key == "(unknown type 5000)"
    assert repr(made).startswith("(unknown type 5000)(0x")
    again = library["echo"](made)
    assert again == made
    assert again is not made
    assert again.same_as(made)
    assert hash(again) == hash(made)
    assert library["make_object"](5000) != made
    assert made != 1
    assert library["echo"]([made])[0] == made
    assert {made: 1}[again] == 1
    with pytest.raises(AttributeError, match=r"of type \(unknown type 5000\) has no attribute 'x'"):
        _ = made.x


DEEP: List[Any] = []
for _ in range(70):
    DEEP = [DEEP]
HOLDS_ITSELF: List[Any] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)


class Converts(runtime.ObjectConvertible):
    """What stands for itself, which is no object."""

    def asobject(self) -> Any:
        return self


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (DEEP, ValueError, "nested more than 64 deep"),
        (HOLDS_ITSELF, ValueError, "or one holds itself"),
        (Converts(), ValueError, "nested more than 64 deep"),
        ([2**63], ValueError, "9223372036854775808, which is no 64-bit integer"),
        (["\ud800"], ValueError, "surrogates not allowed"),
        ([1, [object()]], TypeError, "builtins.object cannot be given to compiled code"),
        ({"a": {1, 2}}, TypeError, "builtins.set cannot be given"),
        ({object(): 1}, TypeError, "builtins.object cannot be given"),
    ],
)
def test_what_cannot_be_an_element(
    library: LibraryModule, value: Any, error: type, message: str
) -> None:
    """It is refused where it is given, and what was made before it is freed."""
    for _ in range(2):
        with pytest.raises(error, match=message):
            library["echo"]([["made before"] * 3, value])
        with pytest.raises(error, match=message):
            Array([["made before"] * 3, value])
        with pytest.raises(error, match=message):
            Map({"made before": "a text that is long", "then": value})


@pytest.mark.usefixtures("nothing_stays")
def test_callbacks_take_and_return_containers(library: LibraryModule) -> None:
    """A function of Python's that C calls gets references; what it returns becomes an object."""
    call = runtime.PackedFunc(lambda array: [*array, {"n": len(array)}])
    assert library["echo"](call)([1, 2]) == [1, 2, {"n": 2}]
