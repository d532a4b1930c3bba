"""What TVM's server does in another way than ours, by cause, with the tests that show it.

A test is named by its file and function, and by a case of it, without the kind, where other cases
pass. Each is expected to fail: where it does not any more, TVM has changed, and the run says so.
Only what ends TVM's server, or may, is skipped.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional


class Deviation(NamedTuple):
    """One difference."""

    reason: str
    tests: List[str]
    """``file::function`` or ``file::function[case]``."""
    is_run: bool = True
    """Whether TVM's server survives the tests."""


OF_TVM = [
    Deviation(
        "the text of an error comes without its kind",
        [
            "test_errors::test_what_a_function_raises",
            *(
                f"test_errors::test_kinds[{name}]"
                for name in ("TypeError", "ValueError", "IndexError", "KeyError", "AttributeError")
            ),
            "test_errors::test_kinds[MyOwnError]",
            "test_errors::test_what_a_kernel_raises",
            "test_modules::test_kernels_of_kernel_h",
            "test_modules::test_libraries_that_are_none",
            "test_modules::test_linked_there",
            "test_modules::test_a_library_with_something_missing",
            "test_timing::test_what_cannot_be_measured",
        ],
    ),
    Deviation(
        "errors name a file by its whole path, and not what is there instead",
        [
            "test_files::test_removing",
            "test_files::test_what_is_not_there",
        ],
    ),
    Deviation("there is no listdir", ["test_files::test_listing"]),
    Deviation("an upload makes no folders", ["test_files::test_folders"]),
    Deviation(
        "names of files may lead anywhere",
        ["test_files::test_names_that_are_refused", "test_files::test_what_lies_outside"],
    ),
    Deviation(
        "nothing of `tvmrpc.*` is there",
        [
            "test_errors::test_it_crashes",
            "test_modules::test_what_only_our_servers_have",
            "test_timing::test_one_call_that_is_timed",
        ],
    ),
    Deviation(
        "sources are refused in other words, and as another kind of error",
        ["test_modules::test_sources"],
    ),
    Deviation(
        "libraries of TVM 0.8 to 0.20 have no function that is found",
        [
            "test_modules::test_a_library_of_an_older_compiler",
            "test_timing::test_an_older_library",
        ],
    ),
    Deviation(
        "whether a device of an unknown type exists is an error",
        ["test_errors::test_a_device_that_is_not_there"],
    ),
    Deviation(
        "`testing.sleep_in_ffi` is not there",
        ["test_timing::test_a_duration"],
    ),
    Deviation(
        "a time evaluator of numbers that make no sense is made",
        [
            f"test_timing::test_settings_that_make_no_sense[{settings}]"
            for settings in (
                "(0, 1, 0, 1, 0, 1, 0)",
                "(-1, 1, 0, 1, 0, 1, 0)",
                "(1, 0, 0, 1, 0, 1, 0)",
                "(1, -1, 0, 1, 0, 1, 0)",
                "(1, 1, -1, 1, 0, 1, 0)",
                "(1, 1, 0, 1, -1, 1, 0)",
                "(1, 1, 0, 1, 0, 0, 0)",
                "(1, 1, 0, 1, 0, 1, -1)",
            )
        ],
    ),
    Deviation(
        "a time evaluator takes the 12 arguments of its own TVM only",
        [f"test_timing::test_arguments_of_each_age[{count}]" for count in (4, 6, 7)],
    ),
    Deviation(
        "random elements of 64 bits are the bits of a float64",
        ["test_timing::test_random_contents[int64]"],
    ),
    Deviation("random bools are all true", ["test_timing::test_random_contents[bool]"]),
    Deviation(
        "a client of TVM 0.8 to 0.20 is answered in the dialect of 0.21, from InitServer on",
        [
            f"test_older_clients::test_{name}"
            for name in (
                *("functions", "values", "errors", "tensors", "elements_of_less_than_a_byte"),
                *("tensors_of_functions", "devices_and_streams", "files", "libraries", "measuring"),
            )
        ],
    ),
    Deviation(
        "a handle is an address, which is followed wherever it leads",
        [
            "test_errors::test_a_handle_that_nobody_gave",
            "test_errors::test_a_handle_of_something_else",
            "test_errors::test_freed_twice",
        ],
        is_run=False,
    ),
    Deviation(
        "what lies beyond the memory of a tensor is read and written",
        ["test_errors::test_beyond_the_memory"],
        is_run=False,
    ),
    Deviation(
        "a request with wrong values, or an unknown one, ends the session, and the server with it",
        [
            "test_errors::test_values_that_a_request_does_not_take",
            "test_errors::test_an_unknown_request",
        ],
        is_run=False,
    ),
    Deviation(
        "a file is written over in place, also if it is a library that is loaded",
        ["test_modules::test_two_libraries"],
        is_run=False,
    ),
]


def deviation_of(file: str, function: str, case: str) -> Optional[Deviation]:
    """What is known of a test with TVM's server.

    Args:
        file: its name, without ``.py``.
        function: its name.
        case: the id of its parameters but the kind, or nothing.
    """
    names = {f"{file}::{function}", f"{file}::{function}[{case}]"}
    return next((found for found in OF_TVM if names.intersection(found.tests)), None)
