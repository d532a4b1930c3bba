"""What a program of ours can be told, as rows: its parser and its command line come from them.

Knows no program, and starts none.
"""

from __future__ import annotations

import operator
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from .errors import SettingError
from .network import LOOPBACK, format_address, parse_address

if TYPE_CHECKING:
    import argparse


class Argument(NamedTuple):
    """One thing that a program can be told.

    Attributes:
        keyword: its name where the program is started from Python.
        help: what ``--help`` says of it; None: nothing, it is for ourselves.
        default: what holds if nothing is said; with a `bool`, the option takes no value and says
            the opposite.
        kind: makes a value of an option's text; a ValueError ends the program with its usage.
        metavar: what stands for the value in ``--help``.
        option: its option, if that is not the keyword.
        field: its name among the program's settings, if that is not the keyword.
        setting: makes the program's setting of what was given, in Python or as an option's value,
            where the kind does not say how. Raises TypeError, ValueError.
        expected: what may be given then, for messages.
        is_optional: whether None stands for the default, as it does for a `bool` and for None.
        text: makes an option's text of a setting.
    """

    keyword: str
    help: Optional[str]
    default: Any = None
    kind: Callable[[str], Any] = str
    metavar: Optional[str] = None
    option: str = ""
    field: str = ""
    setting: Optional[Callable[[Any], Any]] = None
    expected: str = ""
    is_optional: bool = False
    text: Callable[[Any], str] = str

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return self.option or "--" + self.keyword.replace("_", "-")

    @property
    def name(self) -> str:
        """The name among the settings."""
        return self.field or self.keyword

    def value(self, given: Any) -> Any:
        """The setting that is made of what was given, in Python or as an option's value.

        Raises:
            SettingError: it is of a wrong type, or cannot be read.
        """
        expected, make = self.expected, self.setting
        if make is None:
            is_switch = isinstance(self.default, bool)
            if given is None and (self.is_optional or is_switch or self.default is None):
                return self.default
            kind = bool if is_switch else self.kind
            expected, make = _OF_KIND.get(kind, _SECONDS)
        try:
            return make(given)
        except TypeError:
            raise SettingError(
                f"{self.keyword}={given!r} is a {type(given).__name__}; expected {expected}"
            ) from None
        except (ValueError, OverflowError) as error:
            raise SettingError(f"{self.keyword}: {error}") from None


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError
    return given


def _is_truth_value(given: Any) -> bool:
    """Whether it is True or False, of Python or of NumPy, which need not be there."""
    return isinstance(given, bool) or str(getattr(given, "dtype", "")).endswith("bool")


def _whole_number(given: Any) -> int:
    if _is_truth_value(given):
        raise TypeError
    return operator.index(given)


def _number(given: Any) -> float:
    if _is_truth_value(given) or isinstance(given, (str, bytes, bytearray)):
        raise TypeError
    return float(given)


def _switch(given: Any) -> bool:
    if not (_is_truth_value(given) or isinstance(given, int)):
        raise TypeError
    return bool(given)


_SECONDS: Tuple[str, Callable[[Any], Any]] = ("seconds, as a number", _number)

_OF_KIND: Dict[Callable[[str], Any], Tuple[str, Callable[[Any], Any]]] = {
    str: ("a str", _text),
    int: ("an int", _whole_number),
    bool: ("True or False", _switch),
}
"""What may be given for each kind of option; the others are times."""


def seconds(text: str) -> float:
    """A time to wait, as the `kind` of a row."""
    return _seconds(text, "seconds above 0", is_possible=lambda limit_s: 0 < limit_s < 1e9)


def seconds_or_none(text: str) -> float:
    """The same, or 0 for no limit."""
    return _seconds(text, "seconds, or 0", is_possible=lambda limit_s: 0 <= limit_s < 1e9)


def _seconds(text: str, expected: str, is_possible: Callable[[float], bool]) -> float:
    import argparse

    limit_s = float(text)
    if not is_possible(limit_s):
        raise argparse.ArgumentTypeError(f"{text} is no time to wait; expected {expected}")
    return limit_s


def listening(port: int) -> Tuple[Argument, ...]:
    """What each program that listens can be told; `port` is the first that it tries."""
    return (
        Argument(
            "host",
            "the address to listen on (default: %(default)s, this machine only)",
            LOOPBACK,
            is_optional=True,
        ),
        Argument("port", "the first port to try; 0: any that is free", port, int),
        Argument("port_end", "the port behind the last one to try", 9199, int, is_optional=True),
        Argument("silent", "print errors only", default=False),
        Argument("reuse_addr", None, default=True, option="--no-reuse-addr"),
    )


def tracker_to(help: str) -> Argument:
    """The address of a tracker, for those that offer something to one."""
    return Argument(
        "tracker_addr",
        help,
        metavar="HOST:PORT",
        option="--tracker",
        field="tracker",
        setting=_address,
        expected=f"host and port, such as ({LOOPBACK!r}, 9190)",
        text=lambda address: format_address(*address),
    )


def _address(given: Any) -> Optional[Tuple[str, int]]:
    if given and isinstance(given, str):
        return parse_address(given)
    if not given:
        return None
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError
    host, port = _text(given[0]), _whole_number(given[1])
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is none; give 1 to 65535")
    return host, port


def add_arguments(parser: argparse.ArgumentParser, rows: Sequence[Argument]) -> None:
    """Gives a parser the options of the rows; what it reads has the names of their keywords."""
    import argparse

    for row in rows:
        text = argparse.SUPPRESS if row.help is None else row.help
        if isinstance(row.default, bool):
            action = "store_false" if row.default else "store_true"
            parser.add_argument(row.flag, dest=row.keyword, action=action, help=text)
        else:
            parser.add_argument(
                row.flag,
                dest=row.keyword,
                type=row.kind,
                default=row.default,
                metavar=row.metavar,
                help=text,
            )


def settings(rows: Sequence[Argument], given: Mapping[str, Any]) -> Dict[str, Any]:
    """The settings that the rows make of what was given by keyword; other keywords are left out.

    Raises:
        SettingError: what was given cannot be a setting.
    """
    return {row.name: row.value(given[row.keyword]) for row in rows if row.keyword in given}


def command_line(rows: Sequence[Argument], given: Mapping[str, Any]) -> List[str]:
    """The options that say what was given by keyword; what holds anyway is not said.

    Raises: as `settings`.
    """
    options: List[str] = []
    for row in rows:
        value = row.value(given.get(row.keyword, row.default))
        if isinstance(row.default, bool):
            options += [row.flag] if bool(value) != row.default else []
        elif value != row.default and (value or row.default):  # an empty one is none
            options.append(f"{row.flag}={row.text(value)}")
    return options
