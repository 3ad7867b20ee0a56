"""What a judge's calls cost, and the budget that ends them."""

from dataclasses import asdict, dataclass
from typing import Any

from trivium.errors import UserError
from trivium.feedback.judges.base import Reply

MILLION = 1_000_000


class BudgetSpent(UserError):
    """The next call would go beyond the budget. Finished calls are kept, so the same command goes on from there."""


@dataclass
class Usage:
    """Calls made and paid for. ``cached`` counts answers that were there already, ``missing`` calls without a verdict,
    ``seconds`` the time spent waiting for the backend; tokens and ``cost`` (dollars) are those of calls made."""

    calls: int = 0
    cached: int = 0
    missing: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Budget:
    """Prices in dollars a million tokens; limits on the tokens and the dollars of one process, None for no limit."""

    price_input: float = 0.0
    price_output: float = 0.0
    tokens: int | None = None
    cost: float | None = None

    @property
    def limited(self) -> bool:
        return self.tokens is not None or self.cost is not None

    def price(self, reply: Reply) -> float:
        """Dollars for one call.

        >>> Budget(price_input=2.0, price_output=10.0).price(Reply(prompt_tokens=1000, completion_tokens=100))
        0.003
        """
        return (reply.prompt_tokens * self.price_input + reply.completion_tokens * self.price_output) / MILLION

    def measures(self, dearest: Reply) -> bool:
        """Whether ``dearest`` tells how far the limits reach: a call that cost nothing (filtered, failed) does not."""
        tokens = dearest.prompt_tokens + dearest.completion_tokens
        return (self.tokens is None or tokens > 0) and (self.cost is None or self.price(dearest) > 0)

    def room(self, usage: Usage, dearest: Reply) -> int:
        """How many calls as dear as ``dearest`` (its tokens are the most seen so far) still fit."""
        room = []
        if self.tokens is not None:
            room.append((self.tokens - usage.tokens) // max(1, dearest.prompt_tokens + dearest.completion_tokens))
        if self.cost is not None:
            left = self.cost - usage.cost
            price = self.price(dearest)
            # without prices nothing is spent, but a spent budget stays spent
            room.append(int(left / price + 1e-9) if price > 0 else MILLION if left > 0 else 0)
        return max(0, min(room, default=MILLION))

    def spent(self, usage: Usage, waiting: int) -> BudgetSpent:
        """The sentence for a user whose next call would not fit; ``waiting`` calls are still to be made."""
        limits = []
        if self.tokens is not None:
            limits.append(f"{usage.tokens} of budget_tokens {self.tokens}")
        if self.cost is not None:
            limits.append(f"${usage.cost:.4f} of budget_cost ${self.cost:.4f}")
        return BudgetSpent(
            f"the judge's budget is spent ({' and '.join(limits)}) with {waiting} calls still to make: its "
            f"{usage.calls} calls are kept; give the same command again with a larger budget, and it goes on from there"
        )
