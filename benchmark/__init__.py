"""What a score is: models, data, training, tasks, statistics, initialisers. Trusted; knows no agent and no sandbox."""

HARNESS_VERSION = "1"
"""Part of every result key. Raise it when a change to the trainer, the models or the data changes any accuracy."""
