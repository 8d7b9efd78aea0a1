"""What may change and where it runs: the scaffold, the region, the git workspace, isolation."""
