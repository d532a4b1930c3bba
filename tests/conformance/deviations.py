"""What TVM's server does in another way than ours, by the name of the test that shows it.

A name is that of a test function, or, with its parameters but the kind, of one case of it. Each of
them is expected to fail: when one does not any more, TVM has changed.
"""

from __future__ import annotations

from typing import Dict

OF_TVM: Dict[str, str] = {}
