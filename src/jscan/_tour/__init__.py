"""The tour that `python -m jscan` takes: Theano's loop tutorial, then the sunspots."""
