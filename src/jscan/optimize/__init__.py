"""The scan optimizer: rewrites the loops of a traced JAX program."""
