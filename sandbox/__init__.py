"""The scaffold with its editable region, the git workspace that holds it, and the isolation that runs it."""
