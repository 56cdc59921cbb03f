"""What the user said, checked once.

In: the arguments of `scan`. Out: a `ScanSpec`, and the `Step` traced from the user's
function with its states' types settled. Behind this door nothing is checked again.
"""
