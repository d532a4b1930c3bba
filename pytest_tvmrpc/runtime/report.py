"""What was found out about the calls of a run, as a table, CSV or JSON. Measures nothing.

Words, columns and the form of numbers are those of TVM up to 0.19 (src/runtime/profiling.cc), with
two exceptions: entries stay in the order in which they were given, where TVM has that of its hash
table, and quotes within texts are written so that they can be read back.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple, Type, Union

from ..data_type import integer_of, number_text

__all__ = ["Count", "Duration", "Percent", "Ratio", "Report"]


class _Metric:
    """A number and what it is a number of. Equal by both; it cannot be changed."""

    __slots__ = ("_number",)

    _key = ""
    """What stands for the kind in JSON."""

    _number: Any

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._number == other._number

    def __hash__(self) -> int:
        return hash((self._key, self._number))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._number:g})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(self), (self._number,)


class Count(_Metric):
    """How many.

    Args:
        count: an integer.

    Raises:
        TypeError: it is none.
    """

    __slots__ = ()

    _key = "count"

    def __init__(self, count: int) -> None:
        number = integer_of(count)
        if number is None:
            raise TypeError(f"{count!r} is no count; expected an integer")
        self._number = number

    @property
    def value(self) -> int:
        """The number."""
        return int(self._number)

    def __repr__(self) -> str:
        return f"Count({self._number})"


class _Real(_Metric):
    """One that has fractions, and is finite."""

    __slots__ = ()

    _what = ""
    """What the number is, for messages."""

    def __init__(self, number: float) -> None:
        if isinstance(number, (str, bytes)) or not hasattr(number, "__float__"):
            raise TypeError(f"{number!r} is no {self._what}; expected a number")
        try:
            self._number = float(number)
        except OverflowError:
            self._number = math.inf
        if not math.isfinite(self._number):
            shown = number_text(number) if isinstance(number, int) else repr(number)
            raise ValueError(
                f"{shown} is no {self._what}; expected a finite number, at most "
                f"{sys.float_info.max:g}"
            )

    @property
    def number(self) -> float:
        """The number, which has a name of its own in each kind."""
        return float(self._number)


class Duration(_Real):
    """How long.

    Args:
        duration: in microseconds.

    Raises:
        TypeError: it is no number.
        ValueError: it is infinite or NaN.
    """

    __slots__ = ()

    _key = "microseconds"
    _what = "duration in microseconds"

    def __init__(self, duration: float) -> None:
        super().__init__(duration)

    microseconds = _Real.number


class Percent(_Real):
    """A part of the whole.

    Args:
        percent: 100 for the whole.

    Raises:
        TypeError: it is no number.
        ValueError: it is infinite or NaN.
    """

    __slots__ = ()

    _key = "percent"
    _what = "percentage"

    def __init__(self, percent: float) -> None:
        super().__init__(percent)

    percent = _Real.number


class Ratio(_Real):
    """One quantity by another.

    Args:
        ratio: the quotient.

    Raises:
        TypeError: it is no number.
        ValueError: it is infinite or NaN.
    """

    __slots__ = ()

    _key = "ratio"
    _what = "ratio"

    def __init__(self, ratio: float) -> None:
        super().__init__(ratio)

    ratio = _Real.number


Value = Union[str, Count, Duration, Percent, Ratio]
Entries = Dict[str, Value]

_KINDS: Dict[str, Type[Any]] = {kind._key: kind for kind in (Count, Duration, Percent, Ratio)}
_KINDS["string"] = str

_FIRST = ("Name", "Duration (us)", "Percent", "Device", "Count", "Argument Shapes")
"""The columns that each table has, in this order; others come behind them, sorted."""

_RULE = "-" * 10


class Report:
    """What was found out about some calls, and about the devices that they were made on.

    Args:
        calls: for each call its values by name: texts, or `Count`, `Duration`, `Percent`, `Ratio`.
            ``Name``, ``Duration (us)``, ``Percent``, ``Device``, ``Count`` and
            ``Argument Shapes`` are known to `table`.
        device_metrics: the same for the whole run, by the names of devices.
        configuration: the same about the run itself.

    Attributes:
        calls, device_metrics, configuration: as given, copied.

    Raises:
        TypeError: something is none of this; the message names it.
    """

    __slots__ = ("calls", "configuration", "device_metrics")

    def __init__(
        self,
        calls: Sequence[Mapping[str, Value]],
        device_metrics: Mapping[str, Mapping[str, Value]],
        configuration: Mapping[str, Value],
    ) -> None:
        if isinstance(calls, (str, bytes, Mapping)) or not isinstance(calls, Iterable):
            raise TypeError(f"calls is a {type(calls).__name__}; expected a sequence of mappings")
        if not isinstance(device_metrics, Mapping):
            raise TypeError(f"device_metrics is {device_metrics!r}; expected a mapping")
        self.calls: List[Entries] = [
            _checked(f"calls[{index}]", call) for index, call in enumerate(calls)
        ]
        self.device_metrics: Dict[str, Entries] = {
            name: _checked(f"device_metrics[{name!r}]", metrics)
            for name, metrics in _texts("device_metrics", device_metrics)
        }
        self.configuration = _checked("configuration", configuration)

    def csv(self) -> str:
        """The calls as CSV: a line of sorted names, then a line for each call."""
        columns = sorted({name for call in self.calls for name in call})
        lines = [",".join(_csv_name(name) for name in columns)]
        lines += [
            ",".join(_csv_cell(call[name]) if name in call else "" for name in columns)
            for call in self.calls
        ]
        return "".join(f"{line}\n" for line in lines)

    def json(self) -> str:
        """Everything as JSON; each value says its kind: ``{"microseconds": 12.5}``."""
        parts = {
            "calls": f"[{','.join(map(_json_entries, self.calls))}]",
            "device_metrics": _json_object(
                {name: _json_entries(found) for name, found in self.device_metrics.items()}
            ),
            "configuration": _json_entries(self.configuration),
        }
        return _json_object(parts)

    @classmethod
    def from_json(cls, s: str) -> Report:
        """The report of which `json` made this.

        Args:
            s: the text.

        Raises:
            ValueError: it is no such text; the message says where it is not.
            TypeError: it is no text at all.
        """
        try:
            read = json.loads(s, parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("this is no report: it is nested too deeply") from None
        if not isinstance(read, dict):
            raise ValueError(f"this is no report, but a JSON {type(read).__name__}")
        unknown = set(read) - {"calls", "device_metrics", "configuration"}
        if unknown:
            raise ValueError(f"a report has no {', '.join(sorted(map(repr, unknown)))}")
        calls, devices = read.get("calls", []), read.get("device_metrics", {})
        if not isinstance(calls, list) or not isinstance(devices, dict):
            raise ValueError("calls of a report are a list, device_metrics an object")
        return cls(
            [_read(f"calls[{index}]", call) for index, call in enumerate(calls)],
            {name: _read(f"device_metrics[{name!r}]", found) for name, found in devices.items()},
            _read("configuration", read.get("configuration", {})),
        )

    def table(self, sort: bool = True, aggregate: bool = True, col_sums: bool = True) -> str:
        """The calls as a table for people, with a line for each device and the configuration.

        Args:
            sort: whether the longest duration is first; otherwise the first call is.
            aggregate: whether calls with the same name, device and shapes share a line, with the
                sum of their durations, counts and percentages, and the mean of their ratios.
            col_sums: whether there is a line with the sums of the columns.
        """
        rows = _aggregated(self.calls) if aggregate else list(self.calls)
        if sort:
            rows.sort(key=lambda row: -_microseconds(row))
        lines = rows[:]
        if col_sums:
            lines += [{"Name": _RULE}, {"Name": "Sum", **_sums(rows)}]
        lines += [{**found, "Name": "Total"} for found in self.device_metrics.values()]
        others = {name for line in (*rows, *self.device_metrics.values()) for name in line}
        columns = [*_FIRST, *sorted(others - set(_FIRST))]
        cells = [columns, *([_cell(line.get(name, "")) for name in columns] for line in lines)]
        widths = [max(map(len, column)) for column in zip(*cells)]
        text = "".join(
            f"{row[0]:<{widths[0]}}  "
            + "".join(f"{cell:>{width}}  " for cell, width in zip(row[1:], widths[1:]))
            + "\n"
            for row in cells
        )
        text += "\nConfiguration\n-------------\n"
        return text + "".join(
            f"{name}: {_cell(value)}\n" for name, value in self.configuration.items()
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Report) and self._parts() == other._parts()

    __hash__ = None  # type: ignore[assignment]  # its parts can be changed

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        devices = ", ".join(self.device_metrics) or "no device"
        return f"<Report of {len(self.calls)} calls on {devices}>"

    def __reduce__(self) -> Tuple[Any, ...]:
        return Report, self._parts()

    def _parts(self) -> Tuple[List[Entries], Dict[str, Entries], Entries]:
        return self.calls, self.device_metrics, self.configuration


# ----------------------------------------------------------------------------- what goes in


def _texts(where: str, given: Mapping[str, Any]) -> Iterable[Tuple[str, Any]]:
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"{where} has the name {name!r}; expected a str")
    return given.items()


def _checked(where: str, given: Any) -> Entries:
    if not isinstance(given, Mapping):
        raise TypeError(f"{where} is {given!r}; expected a mapping")
    for name, value in _texts(where, given):
        if not isinstance(value, (str, _Metric)):
            raise TypeError(
                f"{where}[{name!r}] is {value!r}; expected a str, Count, Duration, Percent or Ratio"
            )
    return {
        str.__str__(name): str.__str__(value) if isinstance(value, str) else value
        for name, value in given.items()
    }


def _read(where: str, found: Any) -> Entries:
    """The values of a JSON object that `_json_entries` wrote."""
    if not isinstance(found, dict):
        raise ValueError(f"{where} is {found!r}; expected an object")
    return {name: _read_value(f"{where}[{name!r}]", value) for name, value in found.items()}


def _read_value(where: str, found: Any) -> Value:
    kinds = ", ".join(_KINDS)
    if not isinstance(found, dict) or len(found) != 1:
        raise ValueError(f"{where} is {found!r}; expected an object with one of {kinds}")
    ((kind, value),) = found.items()
    if kind not in _KINDS:
        raise ValueError(f"{where} is of the kind {kind!r}; expected one of {kinds}")
    if (kind == "string") != isinstance(value, str):
        raise ValueError(f"{where} is {value!r}; expected a {'text' if kind == 'string' else kind}")
    try:
        made: Value = _KINDS[kind](value)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from None
    return made


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON, nor of a report")


# ---------------------------------------------------------------------------- what comes out


def _csv_name(name: str) -> str:
    return _quoted(name) if set(name) & set(',"\r\n') else name


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _csv_cell(value: Value) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return str(value._number) if isinstance(value, Count) else f"{value._number:g}"


def _json_object(members: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in members.items()) + "}"


def _json_entries(entries: Entries) -> str:
    return _json_object({name: _json_value(value) for name, value in entries.items()})


def _json_value(value: Value) -> str:
    if isinstance(value, str):
        return _json_object({"string": json.dumps(value, ensure_ascii=False)})
    number = str(value._number) if isinstance(value, Count) else f"{value._number:.17f}"
    return _json_object({value._key: number})


def _cell(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Count):
        return str(value._number)
    return f"{value._number:.2g}" if isinstance(value, Ratio) else f"{value._number:.2f}"


def _microseconds(row: Entries) -> float:
    value = row.get("Duration (us)")
    return value.microseconds if isinstance(value, Duration) else 0.0


def _aggregated(calls: Sequence[Entries]) -> List[Entries]:
    """One row for all calls of the same, in the order of their first."""
    groups: Dict[Tuple[Any, ...], List[Entries]] = {}
    for call in calls:
        same = call.get("Hash", call.get("Name")), call.get("Argument Shapes"), call.get("Device")
        groups.setdefault(same, []).append(call)
    return [
        {
            name: _joined([call[name] for call in group if name in call])
            for name in dict.fromkeys(name for call in group for name in call)
        }
        for group in groups.values()
    ]


def _joined(values: Sequence[Value]) -> Value:
    """One value for several: a text only if it is the same for all."""
    first = values[0]
    if isinstance(first, str) or any(type(value) is not type(first) for value in values):
        return first if all(value == first for value in values) else ""
    total = _total(first, values)
    return Ratio(total._number / len(values)) if isinstance(total, Ratio) else total


def _total(first: _Metric, values: Iterable[Any]) -> Any:
    make: Callable[[Any], _Metric] = type(first)
    numbers = [value._number for value in values]
    return make(sum(numbers) if isinstance(first, Count) else math.fsum(numbers))


def _sums(rows: Sequence[Entries]) -> Entries:
    """The sums of the columns, of all but ratios and texts."""
    sums: Entries = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        found = [row[name] for row in rows if isinstance(row.get(name), (Count, Duration, Percent))]
        if found and all(type(value) is type(found[0]) for value in found):
            sums[name] = _total(found[0], found)  # type: ignore[arg-type]  # texts were left out
    return sums
