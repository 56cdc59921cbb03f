"""Traced computations that are looked up by what they compute.

In: functions, traced. Out: a `Program`, equal for equal work, and regions: marked jits
that JAX transforms as it likes and the optimizer rewrites where they are lowered.
"""
