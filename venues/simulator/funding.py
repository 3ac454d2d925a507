"""Money that comes from or goes to the outside of the venue, and what an operator may change."""

import hashlib
from typing import Final

from msgspec.structs import replace

from venues.simulator.commands import (
    CancelWithdrawal,
    CreditDeposit,
    FundsMoved,
    RequestWithdrawal,
    SaveWithdrawalAddress,
    SetBalance,
    SetDepositAddress,
    SetFees,
    SetKey,
    SettleWithdrawal,
    VenueEvent,
)
from venues.simulator.errors import Refusal, VenueRefusal
from venues.simulator.model import (
    Deposit,
    LedgerKind,
    NetworkSpec,
    SavedAddress,
    Withdrawal,
    WithdrawalStatus,
)
from venues.simulator.state import VenueState, network_of

FundingCommand = (
    CreditDeposit
    | SetBalance
    | RequestWithdrawal
    | SettleWithdrawal
    | CancelWithdrawal
    | SaveWithdrawalAddress
    | SetDepositAddress
    | SetFees
    | SetKey
)

_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def check(state: VenueState, command: object) -> None:
    """Refuse what moves funds and cannot; other commands pass.

    Raises:
        VenueRefusal: see the checks of each.
    """
    match command:
        case RequestWithdrawal():
            check_withdrawal(state, command)
        case SettleWithdrawal():
            check_settlement(state, command)
        case CancelWithdrawal():
            check_cancel(state, command)
        case SaveWithdrawalAddress():
            check_address(state, command)
        case _:
            pass


def check_withdrawal(state: VenueState, command: RequestWithdrawal) -> None:
    """Refuse a withdrawal of an unknown asset or network, below the minimum or not covered.

    Raises:
        VenueRefusal: UNKNOWN_ASSET, UNKNOWN_NETWORK, BELOW_MINIMUM or INSUFFICIENT_FUNDS.
    """
    asset = state.assets.get(command.asset)
    if asset is None:
        raise VenueRefusal(Refusal.UNKNOWN_ASSET)
    network = network_of(asset, command.network)
    if network is None:
        raise VenueRefusal(Refusal.UNKNOWN_NETWORK)
    if command.amount_units < max(network.withdraw_min_units, network.withdraw_fee_units + 1):
        raise VenueRefusal(Refusal.BELOW_MINIMUM)
    if command.amount_units > state.accounts[command.account].wallet.free(command.asset):
        raise VenueRefusal(Refusal.INSUFFICIENT_FUNDS)


def check_settlement(state: VenueState, command: SettleWithdrawal) -> None:
    """Refuse to settle a withdrawal that does not exist or is settled already.

    Raises:
        VenueRefusal: UNKNOWN_WITHDRAWAL.
    """
    found = state.find_withdrawal(command.withdrawal_id)
    if found is None or found[1].status is not WithdrawalStatus.PROCESSING:
        raise VenueRefusal(Refusal.UNKNOWN_WITHDRAWAL)


def check_cancel(state: VenueState, command: CancelWithdrawal) -> None:
    """Refuse to take back what the account has not in process.

    Raises:
        VenueRefusal: UNKNOWN_WITHDRAWAL.
    """
    found = state.accounts[command.account].withdrawals.get(command.withdrawal_id)
    if found is None:
        raise VenueRefusal(Refusal.UNKNOWN_WITHDRAWAL)
    if withdrawal_as_of(state, found, command.at_ms).status is not WithdrawalStatus.PROCESSING:
        raise VenueRefusal(Refusal.UNKNOWN_WITHDRAWAL)


def check_address(state: VenueState, command: SaveWithdrawalAddress) -> None:
    """Refuse to save an address of an unknown asset or network.

    Raises:
        VenueRefusal: UNKNOWN_ASSET or UNKNOWN_NETWORK.
    """
    asset = state.assets.get(command.asset)
    if asset is None:
        raise VenueRefusal(Refusal.UNKNOWN_ASSET)
    if network_of(asset, command.network) is None:
        raise VenueRefusal(Refusal.UNKNOWN_NETWORK)


def withdrawal_as_of(state: VenueState, withdrawal: Withdrawal, now_ms: int) -> Withdrawal:
    """A withdrawal as clients see it now: after the configured delay it has completed by itself."""
    delay_ms = state.genesis.withdrawal_delay_ms
    if withdrawal.status is not WithdrawalStatus.PROCESSING or delay_ms is None:
        return withdrawal
    settled_ms = withdrawal.at_ms + delay_ms
    if now_ms < settled_ms:
        return withdrawal
    return replace(withdrawal, status=WithdrawalStatus.COMPLETED, settled_ms=settled_ms)


def deposit_address(state: VenueState, account: str, asset: str, network: NetworkSpec) -> str:
    """The account's address for an asset: as set, or made up from the seed in the right style."""
    found = state.accounts[account].addresses.get((asset, network.name))
    if found is not None:
        return found
    digest = _digest(state, "address", account, network.name)
    if network.address_style == "evm":
        return f"0x{digest[:40]}"
    if network.address_style == "bitcoin":
        words = "".join(_BECH32[int(digest[i : i + 2], 16) % 32] for i in range(0, 64, 2))
        return f"bc1q{words}{words[:6]}"
    return f"{network.name.lower()}-{digest[:24]}"


def apply(state: VenueState, command: FundingCommand) -> list[VenueEvent]:
    """Apply a checked command."""
    match command:
        case CreditDeposit():
            return _credit(state, command)
        case SetBalance():
            return _overwrite(state, command)
        case RequestWithdrawal():
            return _withdraw(state, command)
        case SettleWithdrawal():
            return _settle(state, command)
        case CancelWithdrawal():
            cancelled = WithdrawalStatus.CANCELLED
            return _settle(
                state, SettleWithdrawal(command.at_ms, command.withdrawal_id, cancelled, "")
            )
        case SaveWithdrawalAddress():
            _save_address(state, command)
        case SetDepositAddress():
            addresses = state.accounts[command.account].addresses
            addresses[command.asset, command.network] = command.address
        case SetFees():
            state.accounts[command.account].fees = command.fees
        case SetKey():
            state.set_key(command.account, command.key)
    return []


def _save_address(state: VenueState, command: SaveWithdrawalAddress) -> None:
    network = network_of(state.assets[command.asset], command.network)
    assert network is not None
    state.accounts[command.account].saved_addresses[command.name] = SavedAddress(
        command.name, command.asset, network.name, command.address, command.tag_text
    )


def _overwrite(state: VenueState, command: SetBalance) -> list[VenueEvent]:
    wallet = state.accounts[command.account].wallet
    change = command.free_units - wallet.free(command.asset)
    wallet.set_free(command.asset, command.free_units)
    state.enter_ledger(
        command.account, LedgerKind.ADJUSTMENT, command.asset, change, at_ms=command.at_ms
    )
    return []


def _credit(state: VenueState, command: CreditDeposit) -> list[VenueEvent]:
    account = state.accounts[command.account]
    waiting = _pending_deposit(account.deposits, command)
    if waiting is None:
        state.deposit_count += 1
        deposit = Deposit(
            id=_digest(state, "deposit", state.deposit_count)[:18],
            account=command.account,
            asset=command.asset,
            network=command.network,
            address=command.address,
            tx_id=command.tx_id,
            amount_units=command.amount_units,
            at_ms=command.at_ms,
            is_pending=command.pending,
        )
        if command.tx_id:
            account.deposits.append(deposit)
    else:
        deposit = replace(account.deposits[waiting], is_pending=command.pending)
        account.deposits[waiting] = deposit
    if command.pending:
        return []
    account.wallet.credit(command.asset, deposit.amount_units)
    state.enter_ledger(
        command.account,
        LedgerKind.DEPOSIT,
        command.asset,
        deposit.amount_units,
        at_ms=command.at_ms,
        reference=deposit.id,
    )
    return [FundsMoved(command.account, command.asset, deposit.amount_units, command.at_ms)]


def _pending_deposit(deposits: list[Deposit], command: CreditDeposit) -> int | None:
    """Where the pending deposit of the same transaction is."""
    if not command.tx_id:
        return None
    named = (command.tx_id, command.asset, command.address)
    for position, deposit in enumerate(deposits):
        if deposit.is_pending and (deposit.tx_id, deposit.asset, deposit.address) == named:
            return position
    return None


def _withdraw(state: VenueState, command: RequestWithdrawal) -> list[VenueEvent]:
    account = state.accounts[command.account]
    network = network_of(state.assets[command.asset], command.network)
    assert network is not None
    account.wallet.debit(command.asset, command.amount_units)
    state.withdrawal_count += 1
    digest = _digest(state, "withdrawal", state.withdrawal_count)
    withdrawal = Withdrawal(
        id=digest[:32],
        account=command.account,
        asset=command.asset,
        network=network.name,
        address=command.address,
        tag=command.tag_text,
        amount_units=command.amount_units - network.withdraw_fee_units,
        fee_units=network.withdraw_fee_units,
        client_id=command.client_id,
        at_ms=command.at_ms,
        status=WithdrawalStatus.PROCESSING,
        tx_id=_transaction_id(state, network),
        settled_ms=0,
    )
    account.withdrawals[withdrawal.id] = withdrawal
    state.enter_ledger(
        command.account,
        LedgerKind.WITHDRAWAL,
        command.asset,
        -withdrawal.amount_units,
        at_ms=command.at_ms,
        fee_units=withdrawal.fee_units,
        reference=withdrawal.id,
    )
    return [FundsMoved(command.account, command.asset, -command.amount_units, command.at_ms)]


def _settle(state: VenueState, command: SettleWithdrawal) -> list[VenueEvent]:
    found = state.find_withdrawal(command.withdrawal_id)
    assert found is not None
    account, withdrawal = found
    account.withdrawals[withdrawal.id] = replace(
        withdrawal,
        status=command.status,
        tx_id=command.tx_id or withdrawal.tx_id,
        settled_ms=command.at_ms,
    )
    if command.status is WithdrawalStatus.COMPLETED:
        return []
    refund = withdrawal.amount_units + withdrawal.fee_units
    account.wallet.credit(withdrawal.asset, refund)
    state.enter_ledger(
        account.spec.name,
        LedgerKind.WITHDRAWAL,
        withdrawal.asset,
        withdrawal.amount_units,
        at_ms=command.at_ms,
        fee_units=-withdrawal.fee_units,
        reference=withdrawal.id,
    )
    return [FundsMoved(account.spec.name, withdrawal.asset, refund, command.at_ms)]


def _transaction_id(state: VenueState, network: NetworkSpec) -> str:
    prefix = "0x" if network.address_style == "evm" else ""
    return prefix + _digest(state, "transaction", state.withdrawal_count)


def _digest(state: VenueState, *parts: object) -> str:
    text = "/".join(map(str, (state.genesis.seed, *parts)))
    return hashlib.sha256(text.encode()).hexdigest()
