"""A loop as a value: the record that rules read and change.

In: a scan equation (`reading`). Out: a `Loop` of carries, sequences, equations and
results, and the `Context` that says what is around it.
"""
