"""The verbs: `scan`, `map`, `reduce`, `foldl`, `foldr`, `scan_checkpoints`.

In: the user's call. Out: a `ScanResult`. The stages stand here in order; what they
do is below.
"""
