"""What we take from JAX beyond its documented API, and what we add to it.

In: programs, types and traces as JAX has them. Out: the same, asked and made through
names of our own, so that a new JAX is met in this room alone. Each fact that is relied
on has a test in `tests/jax_contract`.
"""
