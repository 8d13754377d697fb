"""Tokens and money: what was used, what it cost, and the cap that is never passed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rung.errors import RungError, UsageError
from rung.records import Record

_FIRST_TOKENS_PER_BYTE = 1.0  # before any count is known: byte-level tokenizers never write more
_TOKENS_AROUND = 32  # a server's chat format adds a few to every prompt


class SpendingCapReached(RungError):  # noqa: N818 - what happened, in the user's words
    """The next request could have passed the cap on spending, so it was not sent."""


@dataclass(frozen=True)
class Price:
    """Per million prompt and completion tokens, in whatever currency the user counts in."""

    prompt: float
    completion: float

    @classmethod
    def parse(cls, text: str) -> Price:
        """Read `IN/OUT`, for example `0.15/0.60`. Raises UsageError."""
        parts = text.split("/")
        try:
            prices = [float(part) for part in parts]
        except ValueError:
            prices = []
        if len(prices) != 2 or not all(0 <= price < float("inf") for price in prices):
            raise UsageError(
                f"a price is IN/OUT per million prompt and completion tokens, not {text!r}",
                where="--price",
                hint="for example --price 0.15/0.60",
            )
        return cls(*prices)

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True)
class Usage:
    """The tokens of one request as the server counted them."""

    prompt_tokens: int
    completion_tokens: int


def cost_per_1000(usages: Iterable[Usage | None], price: Price | None, *, signature: str = "") -> Record:
    """The cost of 1,000 items from the counts of those asked, or why it is not known."""
    counted = list(usages)
    known = [usage for usage in counted if usage is not None]
    reason = None
    if price is None:
        reason = "no price was given (--price IN/OUT)"
    elif not known:
        reason = "the server reported no token counts" if counted else "nothing was asked"
    elif len(known) < len(counted):
        reason = f"the server reported token counts for {len(known):,} of {len(counted):,} requests only"
    value = None
    if reason is None and price is not None:
        total = price.of(sum(u.prompt_tokens for u in known), sum(u.completion_tokens for u in known))
        value = 1000 * total / len(known)
    return Record(
        name="cost_per_1000",
        value=value,
        unit="currency of the price",
        n=len(counted),
        signature=signature or (f"price per million tokens {price.prompt}/{price.completion}" if price else ""),
        not_measured=reason,
    )


class Spending:
    """Counts tokens, and refuses a request that could pass the cap.

    Before a request, its cost is set aside: its bytes times the most tokens per byte seen so far, and `max_tokens`
    completion tokens. Afterwards that is replaced by what the server counted, and stays where it counted nothing or
    never answered (it may have been billed). What was spent is appended to `ledger`, if there is one, so that a
    resumed or a second process counts on from there; one process spends at a time.
    """

    def __init__(self, price: Price | None, cap: float | None, ledger: Path | None = None) -> None:
        """Raises UsageError for a cap without a price, or one that is not a number above 0."""
        if cap is not None and price is None:
            raise UsageError(
                "a cap on spending needs a price to count with", where="--spend-at-most", hint="give --price IN/OUT"
            )
        if cap is not None and not 0 < cap < float("inf"):
            raise UsageError(f"a cap on spending must be a number above 0, not {cap}", where="--spend-at-most")
        self.price = price
        self.cap = cap
        self.requests = self.prompt_tokens = self.completion_tokens = 0
        self._ledger = ledger
        self._lock = threading.Lock()
        self._reserved = 0.0
        self._tokens_per_byte = 0.0
        self.spent = self._read_ledger()

    def reserve(self, prompt_bytes: int, max_tokens: int) -> float:
        """Set aside what a request may cost at most. Raises SpendingCapReached when that could pass the cap."""
        if self.price is None:
            return 0.0
        with self._lock:
            prompt_tokens = prompt_bytes * (self._tokens_per_byte or _FIRST_TOKENS_PER_BYTE)
            around = 0 if self._tokens_per_byte else _TOKENS_AROUND
            amount = self.price.of(prompt_tokens + around, max_tokens)
            if self.cap is not None and self.spent + self._reserved + amount > self.cap:
                raise SpendingCapReached(
                    f"the next request could cost {amount:.4g}; {self.spent + self._reserved:.4g} of the cap of "
                    f"{self.cap:.4g} is spent or set aside for requests under way",
                    hint="raise the cap and run again with --resume: answers that were paid for are kept",
                )
            self._reserved += amount
        return amount

    def settle(self, amount: float, usage: Usage | None, prompt_bytes: int) -> None:
        """Count a request that was sent; `amount` is what `reserve` gave. No usage: all of it counts as spent."""
        with self._lock:
            self._reserved -= amount
            self.requests += 1
            cost = amount
            if usage is not None:
                self.prompt_tokens += usage.prompt_tokens
                self.completion_tokens += usage.completion_tokens
                self._tokens_per_byte = max(self._tokens_per_byte, usage.prompt_tokens / max(1, prompt_bytes))
                cost = self.price.of(usage.prompt_tokens, usage.completion_tokens) if self.price else 0.0
            self.spent += cost
            self._write_ledger(cost, usage)

    def release(self, amount: float) -> None:
        """Give back what was set aside for a request that certainly cost nothing."""
        with self._lock:
            self._reserved -= amount

    def _read_ledger(self) -> float:
        if self._ledger is None or not self._ledger.exists():
            return 0.0
        lines = self._ledger.read_text(encoding="utf-8").splitlines()
        try:
            return sum(float(json.loads(line)["cost"]) for line in lines)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"the record of what was spent cannot be read ({error})",
                where=str(self._ledger),
                hint="repair the line, or remove the file to count from zero",
            ) from error

    def _write_ledger(self, cost: float, usage: Usage | None) -> None:
        if self._ledger is None or self.price is None:
            return
        line = json.dumps({"cost": cost, "usage": None if usage is None else asdict(usage)})
        with self._ledger.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
