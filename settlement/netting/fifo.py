"""First in, first out: the one largest set of payments that can settle in the order of the queues.

Everything is netted against everything; while an account is short, the last payment of its queue is
dropped. Sets that can settle in order have a largest one, for the union of two can settle too: each
account pays what the longer of its two queues pays, and receives at least as much. So the order of
dropping does not matter (Bech and Soramäki, "Gridlock Resolution in Interbank Payment Systems",
2001, appendix). Each payment is dropped at most once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from settlement.netting.model import Account, Payment


def choose_in_order(payments: Sequence[Payment], rooms: Mapping[Account, int | None]) -> list[int]:
    """Return the indexes of what settles; the queues are in the order of *payments*.

    A trade of several movements stands in the queue of each account that it draws on. An account
    that is not watched has no queue.

    Args:
        rooms: how far the balance of each account may fall, None if it is not watched.
    """
    return _Queues(payments, rooms).settle()


class _Queues:
    """The payments still in, by account, and what would be left in each account."""

    def __init__(self, payments: Sequence[Payment], rooms: Mapping[Account, int | None]) -> None:
        self.payments = payments
        self.left = {account: room for account, room in rooms.items() if room is not None}
        self.queues: dict[Account, list[int]] = {account: [] for account in self.left}
        self.is_in = [True] * len(payments)
        for number in range(len(payments)):
            self._book(number, 1)
            for account in self._drawn_on(number):
                self.queues[account].append(number)

    def settle(self) -> list[int]:
        """Drop the last of whoever is short, until nobody is."""
        short = [account for account, left in self.left.items() if left < 0]
        while short:
            account = short.pop()
            while self.left[account] < 0:
                short += self._drop(self.queues[account][-1])
        return [number for number, is_in in enumerate(self.is_in) if is_in]

    def _drop(self, first: int) -> list[Account]:
        """Drop a payment and all behind it in its queues; return who is short of what it brought."""
        short: list[Account] = []
        dropping = [first]
        while dropping:
            number = dropping.pop()
            if not self.is_in[number]:
                continue
            self.is_in[number] = False
            short += self._book(number, -1)
            for account in self._drawn_on(number):
                queue = self.queues[account]
                while queue and queue[-1] >= number:
                    dropping.append(queue.pop())
        return short

    def _drawn_on(self, number: int) -> set[Account]:
        moves = self.payments[number].movements
        return {(m.payer, m.asset) for m in moves if (m.payer, m.asset) in self.left}

    def _book(self, number: int, sign: int) -> list[Account]:
        """Book a payment, or take it back; return the accounts that fall short by that."""
        short = []
        for move in self.payments[number].movements:
            for account, change in (
                ((move.payer, move.asset), -sign * move.amount),
                ((move.payee, move.asset), sign * move.amount),
            ):
                if account in self.left:
                    self.left[account] += change
                    if change < 0 and self.left[account] < 0:
                        short.append(account)
        return short
