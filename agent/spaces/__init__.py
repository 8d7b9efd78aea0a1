"""Search spaces: the built-in strategy, the numbers of a given region, the starting point."""
