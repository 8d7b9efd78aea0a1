"""Sessions of coding agents: a folder, MCP, and environments for others."""
