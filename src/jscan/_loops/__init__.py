"""Loops that JAX does not have: in stretches, and such as may stop.

In: a step as a `Program` and flat arrays. Out: flat results. Everything is written in
JAX's own control flow, so that every transformation works.

| Kind | When | Written as | Derivative |
|---|---|---|---|
| plain | a known number of steps | `lax.scan` | JAX's |
| in chunks | `checkpoint=`, `truncate_gradient=` | scans in scans | JAX's |
| bounded | `until`, a traced `n_steps` | `while_loop` | `bounded_derivative` |
| watched | `progress=` | one of these with a `Meter`, in stretches | as without |
"""
