"""A language model as proposer: turns answers into tool calls, limits useless answers, logs all text.

Every answer is a `proposal` event, written before the answer is used. So is the reason why the model stopped. A resumed
run reads both from the log and does not ask the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from agent.errors import RunDamaged, UsageError
from agent.llm import prompting
from agent.llm.answers import Answer
from agent.llm.calls import steps_of
from agent.llm.capabilities import Message
from agent.llm.client import Model
from agent.llm.conversation import Conversation, Exchange, Form, request_sha256, size
from agent.llm.errors import AccessRefused, ContextExceeded, ModelUnknown, OutOfTime, ServerFailed, ToolsRefused
from agent.llm.settings import SpendingLimits
from agent.proposers.spending import Spending
from agent.protocol import Observation, ProposerEnd, Situation, ToolCall
from agent.runs.events import Proposal
from agent.runs.log import EventLog
from benchmark.tasks import Metric, Profile

MAX_REPAIRS = 2
"""After this many answers in a row without a usable call, each explained to the model, the next one ends the search."""

PATIENCE = 30
"""The search ends after this many calls in a row without a new test; after 8 when no test is left."""

_PATIENCE_AT_THE_END = 8
_NUDGE_EVERY = 10
_CHARACTERS_PER_TOKEN = 3
_ROOM_FOR_NETWORKS = 8192  # tokens of context; below this the prompt leaves out the networks' source
_SHRINK = 0.6  # share of the conversation after the task that is kept when it is too long

Status = Literal["cost", "format", "api", "time"]


@dataclass(frozen=True)
class Brief:
    """Facts about this search for the prompt, and the limits on the model."""

    profile: Profile
    budget: int
    seeds: tuple[int, ...]
    model: str
    limits: SpendingLimits = field(default_factory=SpendingLimits)
    answer_tokens: int = 16384
    context_tokens: int | None = None
    scaled: bool = False
    """The hybrid proposer scales the numbers of what the model tests."""
    screening: bool = False
    confirm: int = 0
    parallel: int = 1
    """Tests that may be in flight: those of one answer are trained side by side."""


class LLMProposer:
    """Asks a model, gives its calls to the loop one by one, and returns the replies to the model.

    With `ask_early`, `prepare` sends the first request before the baseline is trained, to find out whether the server
    answers.
    """

    def __init__(
        self,
        brief: Brief,
        model: Model,
        log: EventLog,
        *,
        name: str = "llm",
        say: Callable[[str], None] = lambda text: None,
        ask_early: bool = False,
    ) -> None:
        self.name = name
        self._brief = brief
        self._model = model
        self._log = log
        self._say = say
        self._ask_early = ask_early
        self._form: Form = "tools"
        self._room = _room(brief)
        self._conversation: Conversation | None = None
        self._steps: deque[ToolCall | str] = deque()  # from the last answer: calls to carry out, replies to give
        self._awaited: list[tuple[ToolCall, Exchange, int]] = []  # calls whose replies are to come, with their places
        self._note = ""  # text before the next message to the model
        self._baseline_is_news = False
        self._sent: list[str] = []  # our messages since the last answer that are no tool replies, for the log
        self._called = False
        self._reached = False  # whether the server answered this process
        self._repairs = 0
        self._idle = self._tests = self._tests_left = 0
        self._spending = Spending(brief.limits)

    # -- the protocol ---------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> dict[str, Metric]:
        """Task → what its score is."""
        return self._brief.profile.metrics

    def prepare(self, situation: Situation) -> None:
        """Send the first request now if only that tells whether the server answers."""
        recorded = self._log.recorded("proposal") is not None
        if recorded or (self._ask_early and not self._log.replaying):
            self._next_answer(situation)

    def ask(self, situation: Situation) -> ToolCall | None:
        """The model's next call. Raises ProposerEnd when the model or server fails or a limit is reached."""
        self._begin(situation)
        while True:
            while self._steps:
                step = self._steps.popleft()
                if isinstance(step, ToolCall):
                    self._await(step)
                    return step
                self._reply(step, ours=True)
            if self._awaited:  # the model reads the replies to all calls of an answer before it goes on
                return None
            self._next_answer(situation)

    def tell(self, call: ToolCall, observation: Observation, *, look_first: bool = False) -> None:
        """Keep the reply, in the order of the model's calls. After a refusal the answer's other calls are left out.

        With `look_first` they are not carried out either, because the model should read the reply first.
        """
        test = observation.test
        new = test is not None and test.number > self._tests
        self._tests = test.number if test is not None and new else self._tests
        self._idle = 0 if new else self._idle + 1
        reply = observation.reply
        if self._idle and self._idle % _NUDGE_EVERY == 0:
            reply = f"{reply}\n\n{prompting.note('nudge', count=self._idle, left=self._tests_left)}"
        self._reply(reply, to=call)
        if not observation.ok or look_first:
            skipped = prompting.note("look_first" if observation.ok else "skipped")
            self._steps = deque([skipped] * len(self._steps))

    # -- one answer -----------------------------------------------------------------------------------------------

    def _begin(self, situation: Situation) -> Conversation:
        self._tests_left = situation.tests_left
        if self._conversation is None:
            brief = self._brief
            task = prompting.task_prompt(
                brief.profile,
                situation,
                budget=brief.budget,
                seeds=brief.seeds,
                scaled=brief.scaled,
                screening=brief.screening,
                confirm=brief.confirm,
                parallel=brief.parallel,
                networks=brief.context_tokens is None or brief.context_tokens >= _ROOM_FOR_NETWORKS,
            )
            system, answer_format = prompting.system_prompt(), self._answer_format()
            self._conversation = Conversation(system, task, answer_format)
            self._sent = [system, f"{task}\n{answer_format}"]
            self._spending.expect(sum(map(len, self._sent)))
            self._baseline_is_news = not situation.baseline
        if self._baseline_is_news and situation.baseline:
            self._note = prompting.baseline_note(self._brief.profile, situation, self._brief.seeds)
            self._baseline_is_news = False
        return self._conversation

    def _next_answer(self, situation: Situation) -> None:
        conversation = self._begin(situation)
        self._stop_at_limits(situation)
        answer = self._answer(conversation)
        if warning := self._spending.add(answer.usage):
            self._say(warning)
        self._sent = []
        conversation.exchanges.append(Exchange(answer))
        steps = steps_of(answer, code=self._form == "portable")
        if any(isinstance(step, ToolCall) for step in steps):
            self._called, self._repairs = True, 0
            self._steps.extend(steps)
        else:
            self._repair(conversation.exchanges[-1], steps)

    def _repair(self, exchange: Exchange, problems: list[ToolCall | str]) -> None:
        """Explain what was wrong with an answer without a call. End the search after `MAX_REPAIRS` explanations."""
        answer = exchange.answer
        self._repairs += 1
        if self._repairs > MAX_REPAIRS:
            last = " ".join(answer.text.split())[:200]
            words = f" Its last words: {last!r}." if last else ""
            self._end("format", f"The model made no usable tool call in {self._repairs} answers in a row.{words}")
        if answer.calls:
            self._steps.extend(problems)
            return
        if self._form == "tools" and (not self._called or self._repairs > 1):
            self._use_portable_form("the model does not use its tools")
        detail = "; ".join(problem for problem in problems if isinstance(problem, str))
        if answer.finish_reason == "length":
            detail += prompting.note("cut", count=answer.usage.completion)
        self._reply(prompting.note("no_call", form=self._form, detail=detail), ours=True)

    def _await(self, call: ToolCall) -> None:
        """Keep the place of the reply to this call."""
        assert self._conversation is not None
        exchange = self._conversation.exchanges[-1]
        self._awaited.append((call, exchange, len(exchange.replies)))
        exchange.replies.append("")

    def _reply(self, text: str, *, to: ToolCall | None = None, ours: bool = False) -> None:
        """Add a reply for the model, to one of its calls or (`ours`) to the answer.

        The next proposal event records what is ours, because no tool's reply in the log holds it.
        """
        assert self._conversation is not None
        if self._note:
            text, self._note = f"{self._note}\n{text}", ""
        if ours:
            self._sent.append(text)
        same = [index for index, (call, *_) in enumerate(self._awaited) if call is to]
        place = next(iter(same or (index for index, (call, *_) in enumerate(self._awaited) if call == to)), None)
        if place is None:
            self._conversation.exchanges[-1].replies.append(text)
        else:
            _, exchange, position = self._awaited.pop(place)
            exchange.replies[position] = text

    # -- from the log, or from the model --------------------------------------------------------------------------

    def _answer(self, conversation: Conversation) -> Answer:
        recorded = self._log.recorded("proposal")
        if isinstance(recorded, Proposal) and recorded.proposer == self.name:
            return self._recorded_answer(conversation, recorded)
        if self._log.replaying:
            raise RunDamaged(f"{self._log.path}: the model is asked where the recorded search did not ask it")
        refused: list[Message] | None = None
        while True:
            messages, tools = self._question(conversation)
            if refused is not None and size(messages) >= size(refused):
                self._end(
                    "api",
                    f"The task itself does not fit into the context of {self._brief.model}; "
                    "give its server more (for Ollama num_ctx, for llama.cpp --ctx-size).",
                )
            try:
                answer = self._model.complete(messages, tools)
                self._reached = True
                break
            except ContextExceeded:
                refused, task = messages, size(messages[:2])
                self._room = task + int(_SHRINK * (size(messages) - task))
                self._say(
                    f"the conversation is too long for {self._brief.model}: shortened to {self._room:,} characters"
                )
            except ToolsRefused as words:
                if tools is None:
                    self._end("api", str(words))
                self._use_portable_form(str(words))
                refused = None
            except ServerFailed as error:
                refused_us = isinstance(error, AccessRefused | ModelUnknown)
                # A resumed search goes on when the person who resumed it has mended the key or started the server.
                if not self._reached and (refused_us or self._spending.answers):
                    raise UsageError(str(error)) from None
                self._end("api", str(error) if refused_us else f"The model's server gave out: {error}.")
            except OutOfTime as error:
                self._end("time", f"The limit on wall time was reached: {error}.")
        content = self._content(request_sha256(self._brief.model, messages, tools), answer.as_content())
        self._log.append(Proposal(proposer=self.name, content=content))
        return answer

    def _recorded_answer(self, conversation: Conversation, recorded: Proposal) -> Answer:
        """The recorded answer. The log compares the hash of its request with the present one."""
        if end := recorded.content.get("end"):
            self._log.append(recorded)
            raise ProposerEnd(end["status"], end["message"])
        try:
            if recorded.content["form"] != self._form:
                self._use_portable_form("as recorded")
            self._room = recorded.content["room"]
            answer = Answer.from_content(recorded.content)
            messages, tools = self._question(conversation)
        except (KeyError, TypeError) as error:
            raise RunDamaged(f"{self._log.path}: a recorded answer cannot be read again: {error!r}") from None
        digest = request_sha256(self._brief.model, messages, tools)
        self._log.append(Proposal(proposer=self.name, content=self._content(digest, answer.as_content())))
        return answer

    def _content(self, digest: str, answer: dict[str, Any]) -> dict[str, Any]:
        return {"request_sha256": digest, "form": self._form, "room": self._room, "sent": self._sent, **answer}

    def _question(self, conversation: Conversation) -> tuple[list[Message], list[dict[str, Any]] | None]:
        brief = self._brief
        offered = prompting.tools(
            screening=brief.screening, confirm=brief.confirm, scores=prompting.scores_word(brief.profile)
        )
        return conversation.messages(self._form, self._room), offered if self._form == "tools" else None

    def _answer_format(self) -> str:
        return prompting.form_prompt(self._form, screening=self._brief.screening, confirm=self._brief.confirm)

    def _use_portable_form(self, why: str) -> None:
        """From now on calls are blocks in plain text. Earlier messages are sent in that form too."""
        self._say(f"going on without tool calls: {why}")
        self._form = "portable"
        if self._conversation is not None:
            self._conversation.answer_format = self._answer_format()
            self._sent.append(self._conversation.answer_format)

    # -- limits ---------------------------------------------------------------------------------------------------

    def _stop_at_limits(self, situation: Situation) -> None:
        if passed := self._spending.passed():
            self._end("cost", passed)
        patience = PATIENCE if situation.tests_left else _PATIENCE_AT_THE_END
        if self._idle >= patience:
            why = "without a new test" if situation.tests_left else "after the last test without a submission"
            self._end("format", f"The model made {self._idle} calls {why}.")

    def _end(self, status: Status, message: str) -> NoReturn:
        """Record why the model is not asked again, so that a resumed run ends here too, and raise ProposerEnd."""
        self._log.append(Proposal(proposer=self.name, content={"end": {"status": status, "message": message}}))
        raise ProposerEnd(status, message)


def _room(brief: Brief) -> int | None:
    """The most characters of a request, if the size of the context is known: the rest is for the answer."""
    if brief.context_tokens is None:
        return None
    reserved = min(brief.answer_tokens, brief.context_tokens // 4)
    return (brief.context_tokens - reserved) * _CHARACTERS_PER_TOKEN
