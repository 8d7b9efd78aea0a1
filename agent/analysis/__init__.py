"""What results mean: comparisons, generalisation, A/A claims, look scores, finalists, the design of a search."""
