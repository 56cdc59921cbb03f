"""What `python -m jscan` does: the tour, `info`, `calibrate` and `wisdom`."""
