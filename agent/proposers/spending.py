"""Tokens and dollars that the model of a search has used, also in recorded answers, and their limits."""

from __future__ import annotations

from agent.llm.answers import Usage
from agent.llm.settings import SpendingLimits


class Spending:
    """Adds up the usage of answers. `answers`: their number."""

    def __init__(self, limits: SpendingLimits) -> None:
        self.answers = 0
        self._limits = limits
        self._next_prompt = 0  # tokens of the next question, which is at least as long as the last one
        self._tokens = 0
        self._cost = 0.0
        self._warned = False

    def expect(self, characters: int) -> None:
        """The first question will have this length."""
        self._next_prompt = characters // 4

    def passed(self) -> str | None:
        """The limit that the next question would pass, in words; None while there is room."""
        limits = self._limits
        if limits.tokens is not None and self._tokens + self._next_prompt >= limits.tokens:
            return f"The next question would pass the limit of {limits.tokens:,} tokens ({self._tokens:,} used)."
        following = limits.price.cost(self._next_prompt, 0) if limits.price else 0.0
        if limits.cost is not None and self._cost + following >= limits.cost:
            return f"The next question would pass the limit of ${limits.cost:g} (${self._cost:.4f} spent)."
        return None

    def add(self, usage: Usage) -> str | None:
        """Count an answer. Returns a warning, once, when the server seems to cut the context."""
        price = self._limits.price
        self.answers += 1
        self._next_prompt = usage.prompt
        self._tokens += usage.total
        self._cost += (
            usage.cost if usage.cost is not None else price.cost(usage.prompt, usage.completion) if price else 0.0
        )
        full = next((n for n in (usage.prompt, usage.total) if n >= 2048 and n & (n - 1) == 0), None)
        if not full or usage.estimated or self._warned:
            return None
        self._warned = True
        return (
            f"warning: the server counts exactly {full} tokens: it may be cutting the conversation to its context "
            "without a word (Ollama does, at num_ctx); give it more"
        )
