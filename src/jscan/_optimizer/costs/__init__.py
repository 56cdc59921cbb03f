"""What work costs on a machine, in nanoseconds and bytes.

In: kinds and sizes of work. Out: times, by which rules decide. Every number that was
measured stands here.
"""
