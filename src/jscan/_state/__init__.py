"""Shared variables, random streams, and the values they have where code is traced.

In: variables and what a call claims of them. Out: values of one moment, updates stored
all or none. `frames` says what a trace sees.
"""
