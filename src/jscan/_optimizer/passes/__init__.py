"""The rules, a folder for each family; no family sees another.

In: a record and its context. Out: another record with notes of what was done, or the
same with a note of why not. Their order stands in `rules.py`.
"""
