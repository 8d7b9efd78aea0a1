"""Models, data, training, tasks, statistics, initialisers: all that defines a score. Imports no agent or sandbox."""

HARNESS_VERSION = "1"
"""Part of every result key. Raise it when a change to the trainer, the models or the data changes any accuracy."""
