"""What `python -m jscan` does: the tour, and `info`."""
