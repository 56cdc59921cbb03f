"""Rules that look at a whole program: loops that run as one, rows made again."""
