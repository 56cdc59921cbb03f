"""Nothing is carried, read or computed twice, or in vain."""
