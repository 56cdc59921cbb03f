"""How a loop is run.

In: a `ScanSpec` and a `Step`. Out: a plan (which past values are carried, and how), the
compiled body, flat results, and the rows the user gets. `python_loop` is the same for
`mode="DEBUG"`.
"""
