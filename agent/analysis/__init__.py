"""Statistics of results: comparisons, generalisation, A/A claims, look scores, finalists, the design of a search."""
