"""How fast we are beside TVM and beside the least that is possible: ``python -m harness.bench``.

A measuring program, not a test: a goal that is missed is a line in its table. It is read from the
top: `goals` says what is measured, `rounds` how, `peers` and `bare` against whom; one module for
each group of items does it; `table` and `report` show it.
"""
