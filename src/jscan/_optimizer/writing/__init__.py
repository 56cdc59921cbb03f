"""Records become JAX again.

In: a record that the rules are done with. Out: `lax.scan` and what runs before and
behind it, traced into the program around.
"""
