"""What was found out about calls, written and read."""

from __future__ import annotations

import enum
import json
import pickle
from typing import Any, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tvmrpc import runtime
from pytest_tvmrpc.runtime.profiling import Count, Duration, Percent, Ratio, Report

SHAPES = "float32[2, 3], int8[4]"

REPORT = Report(
    [
        {
            "Name": "add",
            "Duration (us)": Duration(12.5),
            "Count": Count(1),
            "Percent": Percent(25.0),
            "Device": "cpu0",
            "Argument Shapes": SHAPES,
        },
        {
            "Name": "mul",
            "Duration (us)": Duration(37.5),
            "Count": Count(1),
            "Percent": Percent(75.0),
            "Device": "cpu0",
            "Argument Shapes": "float32[2, 3]",
        },
        {
            "Name": "add",
            "Duration (us)": Duration(10.25),
            "Count": Count(2),
            "Percent": Percent(20.5),
            "Device": "cpu0",
            "Argument Shapes": SHAPES,
        },
    ],
    {
        "cpu0": {
            "Duration (us)": Duration(100.0),
            "Count": Count(3),
            "Percent": Percent(100.0),
            "Device": "cpu0",
        }
    },
    {"Executor": "VM", "Number of threads": Count(4)},
)


class Word(str, enum.Enum):
    NAME = "Name"


HEAD = "Name        Duration (us)  Percent  Device  Count         Argument Shapes  \n"
SUMS = (
    "----------                                                                 \n"
    "Sum                 60.25   120.50              4                          \n"
)
TOTAL = "Total              100.00   100.00    cpu0      3                          \n"
END = "\nConfiguration\n-------------\nExecutor: VM\nNumber of threads: 4\n"
MUL = "mul                 37.50    75.00    cpu0      1           float32[2, 3]  \n"
FIRST = "add                 12.50    25.00    cpu0      1  float32[2, 3], int8[4]  \n"
SECOND = "add                 10.25    20.50    cpu0      2  float32[2, 3], int8[4]  \n"
BOTH = "add                 22.75    45.50    cpu0      3  float32[2, 3], int8[4]  \n"


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ((), MUL + BOTH),
        ((True, True), MUL + BOTH),
        ((False, True), BOTH + MUL),  # TVM: in the order of its hash table
        ((True, False), MUL + FIRST + SECOND),
        ((False, False), FIRST + MUL + SECOND),
    ],
)
def test_tables_are_tvms(arguments: Any, rows: str) -> None:
    """These are the tables that TVM 0.19 prints of the same report."""
    assert REPORT.table(*arguments) == HEAD + rows + SUMS + TOTAL + END


def test_tables_without_sums() -> None:
    """The columns are no wider than what is in them; TVM 0.19 again."""
    assert REPORT.table(col_sums=False).splitlines()[:4] == [
        "Name   Duration (us)  Percent  Device  Count         Argument Shapes  ",
        "mul            37.50    75.00    cpu0      1           float32[2, 3]  ",
        "add            22.75    45.50    cpu0      3  float32[2, 3], int8[4]  ",
        "Total         100.00   100.00    cpu0      3                          ",
    ]
    assert str(REPORT) == REPORT.table()
    assert repr(REPORT) == "<Report of 3 calls on cpu0>"


def test_csv_is_tvms() -> None:
    """Byte for byte that of TVM 0.19; quotes within a text are doubled, which TVM forgets."""
    assert REPORT.csv() == (
        "Argument Shapes,Count,Device,Duration (us),Name,Percent\n"
        '"float32[2, 3], int8[4]",1,"cpu0",12.5,"add",25\n'
        '"float32[2, 3]",1,"cpu0",37.5,"mul",75\n'
        '"float32[2, 3], int8[4]",2,"cpu0",10.25,"add",20.5\n'
    )
    assert Report([], {}, {}).csv() == "\n"
    uneven: List[Dict[str, Any]] = [
        {"Name": "a", "Duration (us)": Duration(1234567.891), "x": Ratio(0.123456789)},
        {"Name": 'b"c', "Other": Count(1234567), "Duration (us)": Duration(2e9)},
    ]
    assert Report(uneven, {}, {}).csv() == (
        'Duration (us),Name,Other,x\n1.23457e+06,"a",,0.123457\n2e+09,"b""c",1234567,\n'
    )


def test_json_is_tvms() -> None:
    """Numbers have TVM's form: seventeen digits behind the point; entries keep their order."""
    call = {"Name": "add", "Duration (us)": Duration(1234567.891), "Count": Count(2)}
    assert Report([call], {"cpu0": {"x": Ratio(0.5)}}, {"Executor": "VM"}).json() == (
        '{"calls":[{"Name":{"string":"add"},"Duration (us)":{"microseconds":'
        '1234567.89100000006146729},"Count":{"count":2}}],"device_metrics":{"cpu0":{"x":{"ratio":'
        '0.50000000000000000}}},"configuration":{"Executor":{"string":"VM"}}}'
    )


def test_json_of_tvm_is_read() -> None:
    """As TVM 0.19 wrote it; what is left out is empty."""
    text = (
        '{"calls":[{"Percent":{"percent":25.00000000000000000},"Count":{"count":1},"Device":'
        '{"string":"cpu0"},"Duration (us)":{"microseconds":12.50000000000000000}}],'
        '"device_metrics":{"cpu0":{"r":{"ratio":1.5}}},"configuration":{}}'
    )
    report = Report.from_json(text)
    assert report.calls == [
        {
            "Percent": Percent(25.0),
            "Count": Count(1),
            "Device": "cpu0",
            "Duration (us)": Duration(12.5),
        }
    ]
    assert report.device_metrics == {"cpu0": {"r": Ratio(1.5)}}
    assert report.json() == text.replace('"ratio":1.5', '"ratio":1.50000000000000000')
    assert Report.from_json("{}") == Report([], {}, {})


TEXTS = st.text(max_size=4)
NUMBERS = st.floats(-1e9, 1e9).map(lambda number: float(f"{number:.17f}"))  # what JSON keeps
VALUES = st.one_of(
    TEXTS,
    st.integers(-(2**70), 2**70).map(Count),
    *(NUMBERS.map(kind) for kind in (Duration, Percent, Ratio)),
)
ENTRIES = st.dictionaries(TEXTS, VALUES, max_size=3)


@given(st.lists(ENTRIES, max_size=3), st.dictionaries(TEXTS, ENTRIES, max_size=2), ENTRIES)
def test_a_report_comes_back(calls: Any, devices: Any, configuration: Any) -> None:
    """Through JSON and pickle; and every table can be made of it."""
    report = Report(calls, devices, configuration)
    copy = Report.from_json(report.json())
    assert copy == report
    assert copy.json() == report.json()
    assert json.loads(report.json())
    assert pickle.loads(pickle.dumps(report)) == report
    assert report.csv().count("\n") >= len(calls)
    for sort in (False, True):
        for aggregate in (False, True):
            assert "Configuration" in report.table(sort, aggregate)


def test_what_shares_a_line() -> None:
    """Calls of the same name, device and shapes, or of the same hash; ratios are averaged."""
    calls: List[Dict[str, Any]] = [
        {"Name": "a", "Device": "cpu0", "x": Ratio(0.5), "s": "p"},
        {"Name": "a", "Device": "cpu0", "x": Ratio(0.25), "s": "q", "Count": Count(2)},
        {"Name": "a", "Device": "cuda0", "x": Ratio(123456.789)},
        {"Name": "b", "Hash": "h", "y": Percent(0.004)},
        {"Name": "c", "Hash": "h", "y": Percent(0.001)},
    ]
    rows = Report(calls, {}, {}).table(sort=False).splitlines()[1:4]
    assert [row.split() for row in rows] == [
        ["a", "cpu0", "2", "0.38"],
        ["a", "cuda0", "1.2e+05"],
        ["h", "0.01"],
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "5", '{"more":1}', '{"calls":5}', '{"device_metrics":[]}'),
        *('{"calls":[5]}', '{"calls":[{"a":5}]}', '{"calls":[{"a":{"count":1.5}}]}'),
        *('{"calls":[{"a":{"zzz":5}}]}', '{"calls":[{"a":{"count":1,"percent":2}}]}'),
        *('{"calls":[{"a":{"string":5}}]}', '{"calls":[{"a":{"count":"5"}}]}'),
        *('{"calls":[{"a":{"ratio":NaN}}]}', '{"calls":[{"a":{"ratio":1e999}}]}'),
        *('{"calls":[{"a":{"percent":null}}]}', '{"configuration":{"a":{}}}', "[" * 100_000),
        '{"calls":[{"a":{"percent":' + "9" * 400 + "}}]}",
    ],
)
def test_what_is_no_report(text: str) -> None:
    """It is refused."""
    with pytest.raises(ValueError):
        Report.from_json(text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Count(1.5), "1.5 is no count"),  # type: ignore[arg-type]
        (lambda: Count(True), "True is no count"),
        (lambda: Count("1"), "'1' is no count"),  # type: ignore[arg-type]
        (lambda: Duration("1"), "'1' is no duration in microseconds"),  # type: ignore[arg-type]
        (lambda: Percent(None), "None is no percentage"),  # type: ignore[arg-type]
        (lambda: Report(5, {}, {}), "calls is a int; expected a sequence"),  # type: ignore[arg-type]
        (lambda: Report({}, {}, {}), "calls is a dict"),  # type: ignore[arg-type]
        (lambda: Report([5], {}, {}), r"calls\[0\] is 5; expected a mapping"),  # type: ignore[list-item]
        (
            lambda: Report([{"a": 5}], {}, {}),  # type: ignore[dict-item]
            r"calls\[0\]\['a'\] is 5; expected a str, Count",
        ),
        (
            lambda: Report([{5: "a"}], {}, {}),  # type: ignore[dict-item]
            r"calls\[0\] has the name 5; expected a str",
        ),
        (lambda: Report([], [], {}), r"device_metrics is \[\]"),  # type: ignore[arg-type]
        (lambda: Report([], {}, None), "configuration is None"),  # type: ignore[arg-type]
    ],
)
def test_what_a_report_is_not_made_of(make: Any, message: str) -> None:
    """It is refused where it is said."""
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("kind", [Duration, Percent, Ratio])
@pytest.mark.parametrize("number", [float("inf"), float("nan"), 10**400, -(10**5000)], ids=range(4))
def test_numbers_that_no_file_can_hold(kind: Any, number: float) -> None:
    """They are refused: JSON has none."""
    with pytest.raises(ValueError, match="expected a finite number") as caught:
        kind(number)
    assert len(str(caught.value)) < 150


def test_texts_of_an_enum() -> None:
    """They are their characters, not the members' names."""
    made = Report([{Word.NAME: Word.NAME}], {}, {})
    assert made.json() == Report([{"Name": "Name"}], {}, {}).json()


def test_metrics() -> None:
    """Values, each with TVM's name of its number."""
    assert (Count(3).value, Duration(2).microseconds) == (3, 2.0)
    assert (Percent(50).percent, Ratio(0.5).ratio) == (50.0, 0.5)
    assert Count(3) == Count(3) != Percent(3)
    assert len({Count(3), Count(3), Percent(3)}) == 2
    assert [repr(one) for one in (Count(3), Duration(3.25), Ratio(1e10), Percent(1 / 3))] == [
        *("Count(3)", "Duration(3.25)", "Ratio(1e+10)", "Percent(0.333333)")
    ]
    assert runtime.Report is Report
