"""Language models over Chat Completions: settings, one request, what came back, the conversation around it."""
