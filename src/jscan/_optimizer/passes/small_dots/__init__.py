"""Products that stay in the loop are written as the compiler runs them best."""
