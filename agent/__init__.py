"""Who decides: the loop, the tools, the proposers, the record, the commands people type."""
