"""Money that comes from or goes to the outside of the venue, and what an operator may change."""

import hashlib
from typing import Final

from msgspec.structs import replace

from venues.simulator.commands import (
    CreditDeposit,
    FundsMoved,
    RequestWithdrawal,
    SetBalance,
    SetDepositAddress,
    SetFees,
    SettleWithdrawal,
    VenueEvent,
)
from venues.simulator.errors import VenueRefusal
from venues.simulator.model import Deposit, NetworkSpec, Withdrawal, WithdrawalStatus
from venues.simulator.state import VenueState, network_of

FundingCommand = (
    CreditDeposit | SetBalance | RequestWithdrawal | SettleWithdrawal | SetDepositAddress | SetFees
)

_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def check_withdrawal(state: VenueState, command: RequestWithdrawal) -> None:
    """Refuse a withdrawal of an unknown asset or network, below the minimum or not covered.

    Raises:
        VenueRefusal: -4018, -4019, -4022 or -4026.
    """
    asset = state.assets.get(command.asset)
    if asset is None:
        raise VenueRefusal(-4018, "We don't have this asset.")
    network = network_of(asset, command.network)
    if network is None:
        raise VenueRefusal(-4019, "Current asset is not open for withdrawal.")
    if command.amount_units < max(network.withdraw_min_units, network.withdraw_fee_units + 1):
        raise VenueRefusal(-4022, "Not less than the minimum pick-up quantity.")
    if command.amount_units > state.accounts[command.account].wallet.free(command.asset):
        raise VenueRefusal(-4026, "You have insufficient balance.")


def check_settlement(state: VenueState, command: SettleWithdrawal) -> None:
    """Refuse to settle a withdrawal that does not exist or is settled already.

    Raises:
        VenueRefusal: -4029.
    """
    found = state.find_withdrawal(command.withdrawal_id)
    if found is None or found[1].status is not WithdrawalStatus.PROCESSING:
        raise VenueRefusal(-4029, "The withdrawal record does not exist.")


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
            state.accounts[command.account].wallet.set_free(command.asset, command.free_units)
        case RequestWithdrawal():
            return _withdraw(state, command)
        case SettleWithdrawal():
            return _settle(state, command)
        case SetDepositAddress():
            addresses = state.accounts[command.account].addresses
            addresses[command.asset, command.network] = command.address
        case SetFees():
            state.accounts[command.account].fees = command.fees
    return []


def _credit(state: VenueState, command: CreditDeposit) -> list[VenueEvent]:
    account = state.accounts[command.account]
    account.wallet.credit(command.asset, command.amount_units)
    state.deposit_count += 1
    if command.tx_id:
        account.deposits.append(
            Deposit(
                id=_digest(state, "deposit", state.deposit_count)[:18],
                account=command.account,
                asset=command.asset,
                network=command.network,
                address=command.address,
                tx_id=command.tx_id,
                amount_units=command.amount_units,
                at_ms=command.at_ms,
            )
        )
    return [FundsMoved(command.account, command.asset, command.amount_units, command.at_ms)]


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
    return [FundsMoved(account.spec.name, withdrawal.asset, refund, command.at_ms)]


def _transaction_id(state: VenueState, network: NetworkSpec) -> str:
    prefix = "0x" if network.address_style == "evm" else ""
    return prefix + _digest(state, "transaction", state.withdrawal_count)


def _digest(state: VenueState, *parts: object) -> str:
    text = "/".join(map(str, (state.genesis.seed, *parts)))
    return hashlib.sha256(text.encode()).hexdigest()
