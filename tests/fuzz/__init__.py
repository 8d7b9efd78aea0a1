"""Damaged and hostile inputs for everything that reads a file or an answer of a model."""
