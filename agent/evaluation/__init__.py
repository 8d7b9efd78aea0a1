"""Evaluates regions: the call that trains one, the evaluator, the free check, and the workbench."""
