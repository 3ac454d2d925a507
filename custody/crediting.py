"""What becomes of confirmed deposits, page by page: credited, held, nobody's. Pure.

A `Turn` decides about one deposit after the other and collects what is written, posted and told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from custody import arrivals
from custody.compliance.model import PASSED, Case, CaseState
from custody.deposit_model import REASON_LENGTH_MAX, Deposit, DepositKind, DepositState
from custody.freeze_model import Freeze, find_match
from custody.model import held_account, unattributed_account
from custody.plan import Plan
from kernel.clock import iso

ACTOR: Final = "system:deposits"


@dataclass(slots=True)
class Turn:
    """One page of deposits on its way: what is written, posted and told. Decides, and does no I/O."""

    now: datetime
    freezes: Sequence[Freeze]
    cases: Mapping[UUID, Case]
    plan: Plan = field(default_factory=Plan)
    passed: list[tuple[Deposit, ...]] = field(default_factory=list)
    owing: list[Deposit] = field(default_factory=list)
    booked: list[Deposit] = field(default_factory=list)
    """Those for which something is booked beside their hold, which frozen accounts refuse."""
    done: list[Deposit] = field(default_factory=list)

    def layers(self) -> list[list[Deposit]]:
        """Return what is written in each statement: every row's first step, then its second."""
        deepest = max((len(steps) for steps in self.passed), default=0)
        return [[steps[n] for steps in self.passed if len(steps) > n] for n in range(deepest)]

    def settle(self, deposit: Deposit) -> None:
        """Take one confirmed deposit as far as it goes."""
        if deposit.received is not None and deposit.received < deposit.amount:
            self._less(deposit)
        elif deposit.kind is DepositKind.DUST:
            self._end(self._posted(deposit, DepositState.DUST, "DepositIsDust"))
        elif deposit.kind is DepositKind.OWN:
            self._end(self._posted(deposit, DepositState.ARRIVED, "OwnTransferArrived"))
        elif deposit.kind is not DepositKind.CLIENT or deposit.party is None:
            after = self._posted(deposit, DepositState.UNATTRIBUTED, "DepositUnattributed")
            self._end(after)
        else:
            self._clients(deposit, deposit.party, self.cases.get(deposit.id))

    def _clients(self, deposit: Deposit, party: str, case: Case | None) -> None:
        if case is None or case.state is CaseState.OPEN:
            return
        if case.state not in PASSED:
            if deposit.state is DepositState.CONFIRMED:
                self._end(self._held(deposit, party, case.reason))
            return
        frozen = find_match(
            self.freezes,
            chain=deposit.chain,
            asset=deposit.asset,
            wallet=deposit.wallet,
            client=party,
        )
        if frozen is not None:
            self._wait(deposit, f"{frozen.scope} is frozen since {iso(frozen.closed_at)}")
            return
        steps: list[Deposit] = []
        screened = deposit
        if deposit.state is DepositState.CONFIRMED:
            why = f"{case.state} by {case.provider} version {case.list_version}"
            screened = self._step(deposit, DepositState.SCREENED, "DepositScreened", why)
            steps.append(screened)
        steps.append(self._posted(screened, DepositState.CREDITED, "DepositCredited"))
        if deposit.shortfall:
            self.owing.append(deposit)
            self.booked.append(deposit)
        self._end(*steps)

    def _less(self, deposit: Deposit) -> None:
        """Post what really arrived, to nobody; nothing is left of it where nothing did."""
        why = f"{deposit.amount} was logged and {deposit.value} arrived"
        self.booked.append(deposit)
        transfers = arrivals.received_less(deposit)
        self.plan.post(*transfers)
        if deposit.value:
            after = self._step(
                deposit,
                *(DepositState.UNATTRIBUTED, "DepositReceivedLess", why),
                kind=DepositKind.UNATTRIBUTED,
                credit=unattributed_account(deposit.chain),
                postings=(transfers[-1].id,),
                reason=why,
            )
        else:
            after = self._step(
                deposit,
                *(DepositState.QUARANTINED, "DepositNotReceived", why),
                kind=DepositKind.QUARANTINED,
                credit="",
                reason=why,
            )
        self._end(after)

    def _held(self, deposit: Deposit, party: str, reason: str) -> Deposit:
        self.booked.append(deposit)
        void, credit = arrivals.held(deposit, party)
        self.plan.need(held_account(party), deposit.asset)
        self.plan.post(void, credit)
        # The longest words must not keep other deposits waiting.
        why = reason[:REASON_LENGTH_MAX]
        return self._step(
            deposit, DepositState.HELD, "DepositHeld", why, postings=(credit.id,), reason=why
        )

    def _posted(self, deposit: Deposit, state: DepositState, name: str) -> Deposit:
        posting = arrivals.posted(deposit, str(state))
        self.plan.post(posting)
        return self._step(deposit, state, name, postings=(posting.id,), shortfall=0)

    def _step(
        self,
        deposit: Deposit,
        state: DepositState,
        name: str,
        why: str = "",
        **changes: object,
    ) -> Deposit:
        after = arrivals.moved(deposit, state, waiting_for="", **changes)
        self.plan.tell(arrivals.event(deposit, after, name, at=self.now, actor=ACTOR, reason=why))
        return after

    def _wait(self, deposit: Deposit, reason: str) -> None:
        if deposit.waiting_for != reason:
            self.passed.append((replace(deposit, waiting_for=reason),))

    def _end(self, *steps: Deposit) -> None:
        self.passed.append(steps)
        self.done.append(steps[-1])
