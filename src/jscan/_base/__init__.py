"""What everybody uses and what uses nobody: errors, kinds of values, lists, turns.

In: nothing. Out: the texts of errors, questions about values, the queue in which
calls wait for each other. Nothing here knows loops.
"""
