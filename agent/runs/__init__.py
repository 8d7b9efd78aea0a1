"""Run directories: the event log, its readers, the artifacts and the reviews."""
