"""Questions -> answers of a chat endpoint, stored as they come, within a budget.

questions --store--> missing --estimate--> requests, tokens, price --endpoint--> store -> answers
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from holdfast import http
from holdfast.chat import Chat, ChatAnswer, Message, tokens_of
from holdfast.errors import HoldfastError
from holdfast.progress import Progress
from holdfast.sensitivity.store import AnswerStore
from holdfast.tables.text import counted

_MILLION = 1e6


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in and out; None where it was not said."""

    sent: float | None
    answered: float | None

    def of(self, tokens_in: float, tokens_out: float) -> float:
        """Return the price of so many tokens, 0 for what has none."""
        return ((self.sent or 0.0) * tokens_in + (self.answered or 0.0) * tokens_out) / _MILLION

    def is_whole(self) -> bool:
        """Return whether both were said."""
        return self.sent is not None and self.answered is not None


@dataclass(frozen=True)
class ChatQuestion:
    """Messages that are asked for the ``repeat``-th time."""

    messages: tuple[Message, ...]
    repeat: int


class StoppedError(HoldfastError):
    """The budget does not allow another request."""


class Spending:
    """What requests of this call have cost, and whether another is allowed. May be used from many threads.

    A request is allowed if it stays in the budget even with the longest answer. Where that is so only because others
    under way may still turn out cheaper, it waits for them.
    """

    def __init__(self, prices: Prices, budget: float | None, max_requests: int | None) -> None:
        self.prices, self.budget, self.max_requests = prices, budget, max_requests
        self.requests = self.tokens_in = self.tokens_out = 0
        self.spent = 0.0
        self._reserved: list[float] = []
        self._bytes_per_token = 3.0
        self._changed = threading.Condition()

    @contextmanager
    def request(self, messages: Sequence[Message], max_tokens: int) -> Iterator[list[ChatAnswer]]:
        """Wait until a request is allowed, and take what it cost from the answer that is put into the list.

        Raises:
            StoppedError: it never will be.
        """
        answers: list[ChatAnswer] = []
        with self._changed:
            sent = tokens_of(messages, self._bytes_per_token)
            price = self.prices.of(sent, max_tokens)
            while (reason := self._too_much(price)) and self._reserved:
                self._changed.wait()
            if reason:
                raise StoppedError(reason, hint="answers so far are stored; the same command goes on from there")
            self._reserved.append(price)
        try:
            yield answers
        finally:
            with self._changed:
                self._reserved.remove(price)
                for answer in answers:
                    self._settle(messages, answer, sent, max_tokens)
                self._changed.notify_all()

    def _too_much(self, price: float) -> str | None:
        if self.max_requests is not None and self.requests + len(self._reserved) >= self.max_requests:
            return f"stopped by --max-requests {self.max_requests}"
        if self.budget is not None and self.spent + sum(self._reserved) + price > self.budget:
            return (
                f"stopped by --budget {self.budget:g}: {self.spent:.6g} is spent, and the next answer may cost "
                f"{price:.2g}"
            )
        return None

    def _settle(self, messages: Sequence[Message], answer: ChatAnswer, sent: int, max_tokens: int) -> None:
        """Count an answer; where the server counts no tokens, as it was estimated."""
        tokens_in = sent if answer.tokens_in is None else answer.tokens_in
        tokens_out = max_tokens if answer.tokens_out is None else answer.tokens_out
        size = tokens_of(messages, 1.0)
        if tokens_in:  # the template's own tokens included, so the next estimate is rather too high
            self._bytes_per_token = min(self._bytes_per_token, size / tokens_in)
        self.requests += 1
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.spent += self.prices.of(tokens_in, tokens_out)


@dataclass(frozen=True)
class CostEstimate:
    """What is still to be asked: requests, tokens that are sent (about) and answered (at most), and their price."""

    requests: int
    stored: int
    tokens_in: int
    tokens_out: int
    price: float | None

    def sentence(self) -> str:
        """Return it in words."""
        stored = f" ({self.stored:,} are stored)" if self.stored else ""
        price = "" if self.price is None else f", price at most about {self.price:.4g}"
        return (
            f"{counted(self.requests, 'request')} to send{stored}: about "
            f"{counted(self.tokens_in, 'token')} in, at most "
            f"{self.tokens_out:,} out{price}"
        )


def estimate(missing: Sequence[ChatQuestion], stored: int, max_tokens: int, prices: Prices) -> CostEstimate:
    """Return what asking these different questions takes, if every answer is as long as it may be."""
    tokens_in = sum(tokens_of(question.messages) for question in missing)
    tokens_out = max_tokens * len(missing)
    price = round(prices.of(tokens_in, tokens_out), 6) if prices.is_whole() else None
    return CostEstimate(len(missing), stored, tokens_in, tokens_out, price)


class Asker:
    """Asks one endpoint what the store does not have."""

    def __init__(self, chat: Chat, store: AnswerStore, spending: Spending, concurrency: int) -> None:
        self.chat, self.store, self.spending, self.concurrency = chat, store, spending, concurrency
        self.identity = chat.identity()

    def estimate(self, questions: Iterable[ChatQuestion]) -> CostEstimate:
        """Return what asking the rest of these questions takes."""
        distinct = list(self._by_content(questions).values())
        missing = [question for question in distinct if self._stored(question) is None]
        return estimate(missing, len(distinct) - len(missing), self.chat.max_tokens, self.spending.prices)

    def answers(self, questions: Sequence[ChatQuestion]) -> list[ChatAnswer]:
        """Return the answer to each question. Equal questions are asked once.

        The first is asked alone, so that what the server refuses is found out by one request.

        Raises:
            HoldfastError: the server refuses or does not answer, or the budget is spent. Answers so far are stored.
        """
        by_content = self._by_content(questions)
        answers = {content: self._stored(question) for content, question in by_content.items()}
        missing = [content for content, answer in answers.items() if answer is None]
        progress = Progress("answer", len(missing), doing="asking")

        def ask(content: str) -> ChatAnswer:
            return self._asked(by_content[content])

        def keep(content: str, answer: ChatAnswer) -> None:
            answers[content] = answer
            progress.add()

        try:
            http.together(ask, missing[:1], 1, keep)
            if missing:
                self.chat.tell_model()
            http.together(ask, missing[1:], self.concurrency, keep)
        except StoppedError as error:
            left = sum(answer is None for answer in answers.values())
            raise StoppedError(
                f"{error.message}; {left:,} of {counted(len(answers), 'answer')} are missing", hint=error.hint
            ) from error
        finally:
            progress.close()
        whole = [answers[self._content(question)] for question in questions]
        return [answer for answer in whole if answer is not None]

    def ask(self, instruction: str) -> str:
        """Return the answer to one message of a user, from the store if it is there."""
        question = ChatQuestion(({"role": "user", "content": instruction},), 0)
        return (self._stored(question) or self._asked(question)).text

    def sent(self, question: ChatQuestion) -> dict[str, Any]:
        """Return the fields with which a stored answer was asked for, without model and messages."""
        row = self.store.get(self._request(question)) or {}
        return {name: value for name, value in row.get("sent", {}).items() if name != "model"}

    def _asked(self, question: ChatQuestion) -> ChatAnswer:
        with self.spending.request(question.messages, self.chat.max_tokens) as answered:
            answer = self.chat.ask(question.messages)
            answered.append(answer)
        sent = self.chat.fixed | self.chat.optional.fields
        self.store.put(self._request(question), {"answer": dataclasses.asdict(answer), "sent": sent})
        return answer

    def _stored(self, question: ChatQuestion) -> ChatAnswer | None:
        row = self.store.get(self._request(question))
        return None if row is None else ChatAnswer(**row["answer"])

    def _request(self, question: ChatQuestion) -> dict[str, Any]:
        return {"asked": self.identity, "messages": list(question.messages), "repeat": question.repeat}

    def _content(self, question: ChatQuestion) -> str:
        return repr(self._request(question))

    def _by_content(self, questions: Iterable[ChatQuestion]) -> dict[str, ChatQuestion]:
        return {self._content(question): question for question in questions}
