"""Plans by measuring: a loop is written in a few forms, and the fastest is kept.

In: a loop with what is computed of its results alone (`alone`), and a function that
writes it in a form (`forms`). Out: a `Verdict`, remembered on disk (`wisdom`).
"""
