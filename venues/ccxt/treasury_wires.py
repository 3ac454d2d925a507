"""How two families of venues spell deposits and withdrawals: requests to ccxt, and raw answers read.

Everything is read from the raw answer (ccxt's ``info``), exactly. Formats: Binance, Wallet API
("Withdraw", "Withdraw History", "Deposit History", "Deposit Address", "All Coins' Information");
Kraken, REST API, Funding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from kernel.clock import to_unix_ms
from kernel.errors import BadInput
from kernel.money import Asset
from venues.capabilities import Capabilities, Dialect, ErrorTable
from venues.ccxt.texts import (
    decimal_of,
    mapping,
    moment,
    moment_of_seconds,
    rows,
    text_of,
    units_of,
)
from venues.model import RefusalKind
from venues.treasury_model import (
    DepositRecord,
    DepositStatus,
    TreasuryCapabilities,
    VenueAddress,
    VenueNetwork,
    WithdrawalRecord,
    WithdrawalStatus,
    WithdrawalTicket,
    same_address,
)

FINAL: Final = RefusalKind.FINAL
Assets = Mapping[str, Asset]
MILLISECOND: Final = timedelta(milliseconds=1)
WORD_LENGTH_MAX: Final = 300
"""The longest id, address or transaction of a venue that is believed."""
W = TypeVar("W", VenueAddress, WithdrawalRecord, DepositRecord)


class TreasuryWire(Protocol):
    """What differs between venues; asked with ccxt's own instance, and pure where it reads."""

    can: TreasuryCapabilities
    page_max: int
    """Rows of a list that come at once, the newest: as many may mean that there are more."""

    def errors(self, record: Capabilities) -> ErrorTable:
        """Return what the venue's errors prove about a withdrawal."""
        ...

    async def networks(self, exchange: Any, asset: Asset) -> list[VenueNetwork]:
        """Ask for the networks of an asset."""
        ...

    async def deposit_address(self, exchange: Any, asset: Asset, network: str) -> VenueAddress:
        """Ask where the venue takes an asset."""
        ...

    async def prepare(self, exchange: Any, ticket: WithdrawalTicket) -> Mapping[str, Any]:
        """Return the parameters of the withdrawal, asking whatever has to be known before.

        Raises:
            BadInput: the venue would not do it.
        """
        ...

    def withdrawal(self, row: Mapping[str, Any], assets: Assets) -> WithdrawalRecord:
        """Read a row of the list of withdrawals."""
        ...

    def deposit(self, row: Mapping[str, Any], assets: Assets) -> DepositRecord:
        """Read a row of the list of deposits."""
        ...


class BinanceTreasury:
    """Binance: withdrawals carry an id of ours; a request ends with its window."""

    can = TreasuryCapabilities(
        takes_client_id=True,
        acceptance=timedelta(0),
        settling=timedelta(seconds=5),
        names_addresses=False,
    )
    page_max = 1_000

    def errors(self, record: Capabilities) -> ErrorTable:
        """Return the table of orders with what the wallet says more."""
        more = {
            "-4018": FINAL,  # no such asset
            "-4019": FINAL,  # the asset is not open for withdrawal
            "-4022": FINAL,  # below the smallest withdrawal
            "-4026": FINAL,  # insufficient balance
            "-4033": FINAL,  # illegal address
        }
        refusals = {**record.errors.refusals, **more}
        return replace(record.errors, refusals=refusals)

    async def networks(self, exchange: Any, asset: Asset) -> list[VenueNetwork]:
        """Ask for all coins, and keep one."""
        answer = rows(await exchange.sapiGetCapitalConfigGetall({}))
        found = []
        for coin in map(mapping, answer):
            if text_of(coin, "coin") != asset.code:
                continue
            for row in map(mapping, rows(coin.get("networkList"))):
                step = units_of(row, "withdrawIntegerMultiple", asset)
                found.append(
                    VenueNetwork(
                        asset=asset.code,
                        network=text_of(row, "network"),
                        fee=units_of(row, "withdrawFee", asset),
                        least=units_of(row, "withdrawMin", asset),
                        step=max(1, step),
                        withdraws=row.get("withdrawEnable") is True,
                        deposits=row.get("depositEnable") is True,
                    )
                )
        return found

    async def deposit_address(self, exchange: Any, asset: Asset, network: str) -> VenueAddress:
        """Ask by the venue's own names of coin and network."""
        row = mapping(
            await exchange.sapiGetCapitalDepositAddress({"coin": asset.code, "network": network})
        )
        if text_of(row, "coin") != asset.code:
            raise BadInput(f"the venue answered about {row.get('coin')!r}, not {asset.code}")
        return VenueAddress(text_of(row, "address"), str(row.get("tag") or ""))

    async def prepare(self, exchange: Any, ticket: WithdrawalTicket) -> Mapping[str, Any]:
        """Write our own texts, id and window into the request."""
        del exchange
        return {
            "network": ticket.network,
            "amount": ticket.text,
            "withdrawOrderId": ticket.withdrawal_id,
            "timestamp": to_unix_ms(ticket.signed_at),
            "recvWindow": ticket.window // MILLISECOND,
        }

    def withdrawal(self, row: Mapping[str, Any], assets: Assets) -> WithdrawalRecord:
        """Read a row: ``amount`` is what the payee gets."""
        asset = assets[text_of(row, "coin")]
        tx_id = str(row.get("txId") or "")
        return WithdrawalRecord(
            venue_ref=text_of(row, "id"),
            withdrawal_id=str(row.get("withdrawOrderId") or ""),
            asset=asset.code,
            network=text_of(row, "network"),
            address=text_of(row, "address"),
            tag=str(row.get("addressTag") or ""),
            sent=units_of(row, "amount", asset),
            fee=units_of(row, "transactionFee", asset),
            status=_known(_BINANCE_WITHDRAWALS, text_of(row, "status")),
            # A transfer within the venue is in no block.
            tx_id="" if tx_id.startswith("Internal transfer") else tx_id,
            at=_utc(text_of(row, "applyTime")),
        )

    def deposit(self, row: Mapping[str, Any], assets: Assets) -> DepositRecord:
        """Read a row."""
        asset = assets[text_of(row, "coin")]
        return DepositRecord(
            venue_ref=text_of(row, "id"),
            asset=asset.code,
            network=text_of(row, "network"),
            address=text_of(row, "address"),
            tag=str(row.get("addressTag") or ""),
            amount=units_of(row, "amount", asset),
            tx_id=text_of(row, "txId"),
            status=_known(_BINANCE_DEPOSITS, text_of(row, "status")),
            at=moment(row.get("insertTime")),
        )


class KrakenTreasury:
    """Kraken: a withdrawal names a saved address by its key, and carries no id of ours.

    What ends a request is the key's rising number: once a higher one was seen, a lower one is
    refused (`venues.ccxt.treasury` draws it within the request's window).
    """

    can = TreasuryCapabilities(
        takes_client_id=False,
        acceptance=timedelta(0),
        settling=timedelta(seconds=5),
        names_addresses=True,
    )
    page_max = 500

    def errors(self, record: Capabilities) -> ErrorTable:
        """Return the table of orders with what funding says more."""
        more = {
            "EFunding:Unknown asset": FINAL,
            "EFunding:Unknown withdraw key": FINAL,
            "EFunding:Invalid address": FINAL,
            "EFunding:Invalid amount": FINAL,
            "EFunding:Insufficient funds": FINAL,
            "EFunding:Amount too small": FINAL,
            "EFunding:Max fee exceeded": FINAL,
        }
        refusals = {**record.errors.refusals, **more}
        return replace(record.errors, refusals=refusals)

    async def networks(self, exchange: Any, asset: Asset) -> list[VenueNetwork]:
        """Ask for the methods of an asset; a method is one network."""
        code = exchange.currency(asset.code)["id"]
        answer = mapping(await exchange.privatePostWithdrawMethods({"asset": code}))
        found = []
        for row in map(mapping, rows(answer.get("result"))):
            fee = row.get("fee")
            found.append(
                VenueNetwork(
                    asset=asset.code,
                    network=text_of(row, "network"),
                    fee=units_of(mapping(fee), "fee", asset) if fee else 0,
                    least=units_of(row, "minimum", asset),
                    step=1,
                    withdraws=True,
                    deposits=True,
                )
            )
        return found

    async def deposit_address(self, exchange: Any, asset: Asset, network: str) -> VenueAddress:
        """Ask for the method of the network, then for its one address."""
        code = exchange.currency(asset.code)["id"]
        methods = mapping(await exchange.privatePostDepositMethods({"asset": code}))
        names = [
            text_of(row, "method")
            for row in map(mapping, rows(methods.get("result")))
            if row.get("network") == network
        ]
        if len(names) != 1:
            raise BadInput(f"the venue has {len(names)} methods for {asset.code} on {network}")
        answer = await exchange.fetch_deposit_address(asset.code, {"method": names[0]})
        row = mapping(mapping(answer).get("info"))
        return VenueAddress(text_of(row, "address"), str(row.get("tag") or row.get("memo") or ""))

    async def prepare(self, exchange: Any, ticket: WithdrawalTicket) -> Mapping[str, Any]:
        """Return the key under which exactly this address is saved.

        Raises:
            BadInput: it is not saved, or not verified yet.
        """
        code = exchange.currency(ticket.asset)["id"]
        answer = mapping(await exchange.privatePostWithdrawAddresses({"asset": code}))
        method_of = await self._methods(exchange, code)
        keys = [
            text_of(row, "key")
            for row in map(mapping, rows(answer.get("result")))
            if same_address(ticket.address, text_of(row, "address"))
            and row.get("verified") is True
            and not row.get("tag")
            and method_of.get(text_of(row, "method")) == ticket.network
        ]
        if not keys:
            raise BadInput(
                f"{ticket.address} is not saved and verified at the venue for {ticket.asset} on"
                f" {ticket.network}"
            )
        return {"key": min(keys), "amount": ticket.text}

    async def _methods(self, exchange: Any, code: str) -> dict[str, str]:
        answer = mapping(await exchange.privatePostWithdrawMethods({"asset": code}))
        found = map(mapping, rows(answer.get("result")))
        return {text_of(row, "method"): text_of(row, "network") for row in found}

    def withdrawal(self, row: Mapping[str, Any], assets: Assets) -> WithdrawalRecord:
        """Read a row, whose asset goes by ccxt's code; ``amount`` is what the payee gets."""
        asset = assets[text_of(row, CODE)]
        return WithdrawalRecord(
            venue_ref=text_of(row, "refid"),
            withdrawal_id="",
            asset=asset.code,
            network=text_of(row, "network"),
            address=text_of(row, "info"),
            tag="",
            sent=units_of(row, "amount", asset),
            fee=units_of(row, "fee", asset),
            status=_known(_KRAKEN_WITHDRAWALS, text_of(row, "status")),
            tx_id=str(row.get("txid") or ""),
            at=moment_of_seconds(decimal_of(row, "time")),
        )

    def deposit(self, row: Mapping[str, Any], assets: Assets) -> DepositRecord:
        """Read a row."""
        asset = assets[text_of(row, CODE)]
        return DepositRecord(
            venue_ref=text_of(row, "refid"),
            asset=asset.code,
            network=text_of(row, "network"),
            address=text_of(row, "info"),
            tag="",
            amount=units_of(row, "amount", asset),
            tx_id=text_of(row, "txid"),
            status=_known(_KRAKEN_DEPOSITS, text_of(row, "status")),
            at=moment_of_seconds(decimal_of(row, "time")),
        )


CODE: Final = "causeway-code"
"""Under which a raw row is given ccxt's code of its asset."""
AT: Final = "causeway-at"
"""Under which a raw row is given its time, in milliseconds."""

_BINANCE_WITHDRAWALS: Final = {
    "0": WithdrawalStatus.PROCESSING,  # a mail was sent
    "2": WithdrawalStatus.PROCESSING,  # awaits approval
    "4": WithdrawalStatus.PROCESSING,
    "6": WithdrawalStatus.COMPLETED,
    "1": WithdrawalStatus.FAILED,  # cancelled
    "3": WithdrawalStatus.FAILED,  # rejected
    "5": WithdrawalStatus.FAILED,
}
_BINANCE_DEPOSITS: Final = {
    "0": DepositStatus.PENDING,
    "8": DepositStatus.PENDING,  # the user has to confirm it
    "1": DepositStatus.CREDITED,
    "6": DepositStatus.CREDITED,  # credited, and not to be withdrawn yet
    "2": DepositStatus.REFUSED,
    "7": DepositStatus.REFUSED,  # a wrong deposit
}
_KRAKEN_WITHDRAWALS: Final = {
    "Initial": WithdrawalStatus.PROCESSING,
    "Pending": WithdrawalStatus.PROCESSING,
    "On hold": WithdrawalStatus.PROCESSING,
    "Settled": WithdrawalStatus.PROCESSING,
    "Success": WithdrawalStatus.COMPLETED,
    "Failure": WithdrawalStatus.FAILED,
}
_KRAKEN_DEPOSITS: Final = {
    "Initial": DepositStatus.PENDING,
    "Pending": DepositStatus.PENDING,
    "Settled": DepositStatus.PENDING,
    "Success": DepositStatus.CREDITED,
    "Failure": DepositStatus.REFUSED,
}

WIRES: Final[Mapping[Dialect, TreasuryWire]] = {
    Dialect.BINANCE: BinanceTreasury(),
    Dialect.KRAKEN: KrakenTreasury(),
}
"""A venue without an entry here has no treasury of ours: nothing is withdrawn by ccxt's unified words
alone, which do not say what a fee is taken from."""


def wire_of(record: Capabilities) -> TreasuryWire:
    """Return how a venue's treasury is spoken to.

    Raises:
        BadInput: nobody has written that down.
    """
    wire = WIRES.get(record.dialect)
    if wire is None:
        raise BadInput(
            f"transfers to and from venues of {record.ccxt_id} are not supported",
            remedy=f"Known: {', '.join(sorted(WIRES))}",
        )
    return wire


def raw_rows(answer: Any) -> Sequence[Mapping[str, Any]]:
    """Return the raw rows of a list of ccxt's, each with its time and ccxt's code of its asset."""
    found = []
    for item in map(mapping, rows(answer)):
        code = item.get("currency")
        at = item.get("timestamp")
        if not isinstance(at, int):
            raise BadInput(f"{at!r} is not the time of a row")
        words = {CODE: "" if code is None else str(code), AT: at}
        found.append({**mapping(item.get("info")), **words})
    return found


def is_writable(text: str) -> bool:
    """Tell whether a word of the venue's is one that a row can hold, and an index over it."""
    return 0 < len(text) <= WORD_LENGTH_MAX and text.isascii() and text.isprintable()


def require_writable(item: W) -> W:
    """Return what the venue said.

    Raises:
        BadInput: a text in it is none that can be written down.
    """
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, str) and value and not is_writable(value):
            raise BadInput(f"the venue's {field.name} is no word: {value[:80]!a}")
    return item


def _known(table: Mapping[str, Any], word: str) -> Any:
    if word not in table:
        raise BadInput(f"{word!r} is not a status that is known")
    return table[word]


def _utc(text: str) -> datetime:
    """Read ``2026-01-05 09:00:00``, which is in UTC."""
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise BadInput(f"{text!r} is not a time") from error
