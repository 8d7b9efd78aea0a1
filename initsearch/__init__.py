"""The name under which other programs find ours: `inspect eval initsearch/init_search`. Nothing of ours imports it."""
