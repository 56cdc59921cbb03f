"""The way through a whole program, from loop to loop.

In: a traced program. Out: the same with its loops rewritten, and what the report needs
to know of each.
"""
