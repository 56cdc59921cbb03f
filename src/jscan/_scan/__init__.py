"""The verbs: `scan`, `map`, `reduce`, `foldl`, `foldr`, `scan_checkpoints`, `draw`.

In: the user's call. Out: a `ScanResult`, or a `Drawing`. The stages stand here in
order; what they do is below.
"""
