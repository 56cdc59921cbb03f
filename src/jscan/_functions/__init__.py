"""Functions made of functions: `function`, `grad`, `optimize`, `explain`.

In: a Python function and arguments with shared variables. Out: results, with updates
stored, and compiled programs kept for the next call.
"""
