"""Language models over Chat Completions: settings, the client, the answers, and the conversation."""
