"""Language models over Chat Completions: settings, client, answers, conversation."""
