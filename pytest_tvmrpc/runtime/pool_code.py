"""The machine code of pool.c, by `python -m harness.machine_code`: edit pool.c.

For each machine (its number in ELF): where each function begins, and the code as base64.
"""

from __future__ import annotations

from typing import Dict, Tuple

SOURCE_SHA256 = "9cd0c43363fbd685a18944da170ea1be444dcb2618e7e950813bed9e5ba91203"
CODE: Dict[int, Tuple[Dict[str, int], str]] = {
    62: (
        {
            "tvmrpc_serve": 117,
            "tvmrpc_tell": 321,
            "tvmrpc_end": 327,
            "tvmrpc_wait": 428,
            "tvmrpc_watch": 434,
            "tvmrpc_run": 459,
        },
        "8w8e+kUx0khj9onSuMoAAAAPBcPzDx76VYn1SIn+U0iJ+1FIi1cYie//UxCJwoXAdAn/xTHA8A+xaySJ0FpbXcNI"
        "g8cgQYPI//BED8EHRInAJf///y89AQAAIHUURTHSuMoAAAC+gQAAALoBAAAADwVEicDD8w8e+kFVQVRFMeRVMe1T"
        "SIn7UYsDg/gBd0SF7XUYQbgBAAAAQbnKAAAAvoAAAAC6AQAAAOsi/83zkOvXRIng8EQPsQN1C0Ux0kyJyEiJ3w8F"
        "iwOD+AF3Bv/IdeDr6IP4A3RATItrCItzBESJ4EGLbQyHA0yJ7+gk////SIXAdApIweAgSIPIBusbTInv6Dr///8P"
        "uuAcD4N3////uAQAAADrAjHAWltdQVxBXcPzDx76hzf/znUURTHSuMoAAAC+gQAAALoBAAAADwXD8w8e+uvb8w8e"
        "+unx/v//8w8e+otPDEiJ+ItQIEiNeCD3wv///w90QoXJdQ1BuMoAAAC+gAAAAOsG/8nzkOvaD7riHXMTRTHSTInA"
        "DwWLF/fC////D3Xow/CBDwAAACCLF/fC////D3XWw8PzDx76657zDx76i0cgicKBygAAABDwD7FXIHXxidDD8w8e"
        "+lWNQgFIifUx9lNIiftBidBFMclRiUcgiXckTTnIdB9Ki3zNAEGNQQG+AgAAAEn/wUiJXwiJRwToF////+vcMfZI"
        "id/o/f3//0iJ30mJwegf/v//TYXJdApJweEgSYPJAusWD7rgHHIKSInf6BH////rBkG5AQAAAFpMichbXcM=",
    ),
    183: (
        {
            "tvmrpc_serve": 196,
            "tvmrpc_tell": 444,
            "tvmrpc_end": 452,
            "tvmrpc_wait": 608,
            "tvmrpc_watch": 616,
            "tvmrpc_run": 644,
        },
        "XyQD1UgMgNIhfECT4gMCKgMAgNIBAADUwANf1l8kA9X9e76p/QMAkQMIQanzUwGp9AMBKvMDAKrhAwCq4AMUKmAA"
        "P9bgAAA0lAYAEXOSAJFh/l+IYQAANXT+Aoii//8181NBqeADACr9e8KowANf1gCAAJEE/F+IgQQAUQH8Aoii//81"
        "AQC6EiIAgFKBAAEKAgCkcj8AAmshAQBU/Xu/qSIAgFIhEIBS/QMAkdX//5fgAwQq/XvBqMADX9bgAwQqwANf1l8k"
        "A9X9e72p/QMAkfNTAanzAwCqFACAUvVbAqk2AIBSYP7fiB8EAHHIAQBUlAAANJQGAFHfPwPV+v//Fx8EAHHhAgBU"
        "4AMTqiIAgFIBEIBSu///l2D+34gfBABxCf//VB8MAHFAAwBUdQZA+WEGQLm0DkC5f/6fiOADFaq3//+XwAEAtAB8"
        "YNMABH+y81NBqfVbQqn9e8OowANf1mD+X4hgAAA1dv4BiKH//zUfAABxoPz/VOj//xfgAxWqvP//lwD75zaAAIDS"
        "8f//FwAAgNLv//8XXyQD1QL8X4gB/ASIxP//NV8EAHFhAABUIRCAUpP//xfAA1/WXyQD1fb//xdfJAPVqv//F18k"
        "A9UBDEC5BIAAkYL834hfbEDyQQAAVMADX9ZBAgA0IQQAUd8/A9X5//8XIgHoNuADBKoBEIBSf///l4L834hfbEDy"
        "Qf//VP17wajAA1/WgPxfiAAAAzKA/AGIof//Nff//xciAeg3gPxfiAAAAzKA/AGIof//NYL834hfbEDyIf//VMAD"
        "X9b9e7+p/QMAkej//xdfJAPV2v//F18kA9UBgACRIPxfiAAABDIg/AKIov//NcADX9ZfJAPV/Xu+qecDAarlAwIq"
        "/QMAkfMLAPnzAwCqBgCA0kAEABFgfgQpvwAG68EBAFQBAIBS4AMTqlj//5flAwCq4AMTqmr//5flAQC0pXxg06UA"
        "f7LzC0D54AMFqv17wqjAA1/W4Hhm+MEEABHGBACRAQQAuUEAgFITBAD5pv//l+r//xeAAOA34AMTqq///5fx//8X"
        "JQCA0u///xc=",
    ),
}
