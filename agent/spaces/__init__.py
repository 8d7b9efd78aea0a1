"""What is searched: the built-in search space, the numbers of a given region, the starting point."""
