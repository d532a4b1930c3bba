"""The machine code of timing_loop.c, by `python -m harness.machine_code`: edit timing_loop.c.

For each machine (its number in ELF): where each function begins, and the code as base64.
"""

from __future__ import annotations

from typing import Dict, Tuple

SOURCE_SHA256 = "58d1c7d4e73c59214f2303db350573f21009e9d816956ccc7cf07d9fb670d96d"
CODE: Dict[int, Tuple[Dict[str, int], str]] = {
    62: (
        {
            "mrpc_time_calls": 0,
            "mrpc_time_legacy_calls": 146,
        },
        "8w8e+kFXQVZBic5BVU2JzUFUSYn8VTHtU0yJw0iD7ChBi3kgSIk0JEyNfCQQSYtxEEiJVCQIQf8Rhe11OEiF234z"
        "McBIi3QkCEiLPCRMiflIiUQkEESJ8kiJRCQYQf/Ug3wkED+JxX4HTIn/Qf9VCEj/y+vESYt1GEGLfSBB/1UASIPE"
        "KInoW11BXEFdQV5BX8PzDx76QVdBVkGJzkFVTYnNQVRJifxVMe1TTInDSIPsKEGLeSBIiTQkTI18JBBJi3EQSIlU"
        "JAhB/xGF7XVDSIXbfj4xwEUxycdEJBgEAAAATIn5SIlEJBBIi3QkCEyNRCQYRInySIs8JEH/1IN8JBgHicV+B0yJ"
        "/0H/VQhI/8vruUmLdRhBi30gQf9VAEiDxCiJ6FtdQVxBXUFeQV/D",
    ),
    183: (
        {
            "mrpc_time_calls": 0,
            "mrpc_time_legacy_calls": 192,
        },
        "XyQD1f17uqn9AwCR9VsCqfYDAKqgIEC592MDqfcDAar4AwKqogBA+fNTAakVAIBSoQhA+flrBKn0AwSq+QMDKvMD"
        "Bar6QwGRQAA/1p8CAPFNAABUlQEANGICQPlhDkD5YCJAuUAAP9bzU0Gp4AMVKvVbQqn3Y0Op+WtEqf17xqjAA1/W"
        "/38FqeMDGqriAxkq4QMYquADF6rAAj/W9QMAKuBTQLkf/ABxjQAAVGEGQPngAxqqIAA/1pQGANHk//8XXyQD1f17"
        "uan9AwCR9VsCqfYDAKqgIEC592MDqfcDAar4AwKqogBA+fNTAakVAIBSoQhA+flrBKn0AwSq+3MFqfkDAyrzAwWq"
        "+oMBkfyjAZGbAIBSQAA/1p8CAPFNAABUtQEANGICQPlhDkD5YCJAuUAAP9bzU0Gp4AMVKvVbQqn3Y0Op+WtEqftz"
        "Ran9e8eowANf1v8zAPnkAxyq+2sAueMDGqriAxkq4QMYquADF6oFAIDSwAI/1vUDACrga0C5HxwAcY0AAFRhBkD5"
        "4AMaqiAAP9aUBgDR4P//Fw==",
    ),
    40: (
        {
            "mrpc_time_calls": 0,
            "mrpc_time_legacy_calls": 200,
        },
        "8E8t6RzQTeIAcKDhSFCd5QYAjegDkKDhCBCV5QAwleUQAJXlQECd5URgneUz/y/hAICg4wigoOEIsI3iAQBU4wAg"
        "1uIBIKCjACCgswAAWOMAIKATASACAgAAUuMGAAAaACCV5QwQleUQAJXlMv8v4QgAoOEc0I3i8I+96AAgoOMAMKDj"
        "0ADN4fAhzeEIoI3lCSCg4QswoOEMoI3lN/8v4QggneU/AFLjAICg4QIAANoEIJXlCwCg4TL/L+EBQFTiAGDG4tz/"
        "/+rwTy3pJNBN4gCAoOFQUJ3lCBCN5QOQoOEIEJXlADCV5RAAleVIQJ3lTHCd5QwgjeUz/y/hAGCg4wSwoOMQoI3i"
        "AQBU4wAw1+IBMKCjADCgswAAVuMAMKATATADAgAAU+MGAAAaADCV5QwQleUQAJXlM/8v4QYAoOEk0I3i8I+96AAg"
        "oOMAMKDj2ADN4fAhzeEAMKDjBDCN5RgwjeIAMI3lCSCg4QowoOEYsI3lOP8v4RgwneUHAFPjAGCg4QIAANoEMJXl"
        "CgCg4TP/L+EBQFTiAHDH4tn//+o=",
    ),
    243: (
        {
            "mrpc_time_calls": 0,
            "mrpc_time_legacy_calls": 124,
        },
        "HXGi6D6ETvxS+JxjqokuighQDGim5MrgVvRa8F7sYuiG7LKKNou6hAFJgpeKixMM8ANjVJAAYwMJAhxgDGwIUIKX"
        "5mBGZKZk4nlCeqJ6Anvia0JsSoUGaSVhgoAC4ALk3oZahtaFUoWCmYJHKoljVfwAHGRehYKX/RRlv1lxovA+hM7k"
        "0uCcY6qJLooIUAxopuzK6Fb8Wvhe9GLwZuxq6Ib0soo2i7qEAUmClxFMiouTDIEAHU1jVJAAYwUJAhxgDGwIUIKX"
        "pnAGdOZkpmkGauJ6QnuiewJ84mxCbUqFRmllYYKAgUcC4GLEZofehlqG1oVShYKZokcqiWNV/QAcZF6Fgpf9FEW/",
    ),
}
