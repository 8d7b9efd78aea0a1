"""What each command does; `agent.cli` holds the words that people type."""
