"""Questions about programs and loops, which change nothing.

In: equations and records. Out: answers: what depends on what, what is the same, who
reads a result, how large a loop is, where its arrays lie.
"""
