"""Settings of a simulator and the genesis record that follows from them."""

import base64
import hashlib
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from typing import Final

from venues.simulator.decimals import UNIT, units_from_text
from venues.simulator.errors import SettingsInvalid, VenueRefusal
from venues.simulator.model import (
    FLOW,
    HOUSE,
    AccountSpec,
    ApiKeySpec,
    AssetSpec,
    FeeRates,
    Genesis,
    MakerSpec,
    NetworkSpec,
    SymbolSpec,
)
from venues.simulator.schedule import Schedule

DEFAULT_ACCOUNT: Final = "desk"

DEFAULT_SYMBOLS: Final = (
    SymbolSpec("ETHUSDT", "ETH", "USDT", UNIT // 100, UNIT // 10_000, 5 * UNIT, 300_000),
    SymbolSpec("BTCUSDT", "BTC", "USDT", UNIT // 100, UNIT // 100_000, 5 * UNIT, 6_000_000),
)

KRAKEN_SYMBOLS: Final = (
    SymbolSpec("BTCUSD", "BTC", "USD", UNIT // 10, 1, 1 * UNIT // 2, 600_000),
    SymbolSpec("ETHUSD", "ETH", "USD", UNIT // 100, 1, 1 * UNIT // 2, 300_000),
    SymbolSpec("BTCUSDT", "BTC", "USDT", UNIT // 10, 1, 1 * UNIT // 2, 600_000),
    SymbolSpec("ETHUSDT", "ETH", "USDT", UNIT // 100, 1, 1 * UNIT // 2, 300_000),
)

DEFAULT_ASSETS: Final = (
    AssetSpec("BTC", (NetworkSpec("BTC", UNIT // 10_000, UNIT // 1_000, "bitcoin"),)),
    AssetSpec("ETH", (NetworkSpec("ETH", UNIT // 2_000, UNIT // 100, "evm"),)),
    AssetSpec("USDT", (NetworkSpec("ETH", 1 * UNIT, 10 * UNIT, "evm"),)),
    AssetSpec("USDC", (NetworkSpec("ETH", 1 * UNIT, 10 * UNIT, "evm"),)),
    AssetSpec("BNB", (NetworkSpec("BSC", UNIT // 10_000, UNIT // 100, "evm"),)),
)

KRAKEN_ASSETS: Final = (
    *(asset for asset in DEFAULT_ASSETS if asset.name != "BNB"),
    AssetSpec("USD", (NetworkSpec("WIRE", 4 * UNIT, 20 * UNIT, "text"),)),
)

DEFAULT_BALANCES: Final = {
    "BTC": 50 * UNIT,
    "ETH": 1_000 * UNIT,
    "USDT": 5_000_000 * UNIT,
    "BNB": 100 * UNIT,
}

KRAKEN_BALANCES: Final = {
    "BTC": 50 * UNIT,
    "ETH": 1_000 * UNIT,
    "USD": 5_000_000 * UNIT,
    "USDT": 5_000_000 * UNIT,
    "USDC": 100_000 * UNIT,
}

DEFAULT_MAKER: Final = MakerSpec()

DEFAULT_FEE_ASSET_PRICES: Final = {"BNB": {"USDT": 600 * UNIT}}
KRAKEN_FEE_ASSET_PRICES: Final = {"USDC": {"USD": UNIT, "USDT": UNIT}}


@unique
class DialectName(StrEnum):
    """Wire dialects the venue can be spoken to in."""

    BINANCE = "binance"
    KRAKEN = "kraken"


@dataclass(frozen=True, slots=True)
class VenueDefaults:
    """What a venue of a dialect has unless it is told otherwise."""

    symbols: tuple[SymbolSpec, ...]
    assets: tuple[AssetSpec, ...]
    balances: dict[str, int]
    fees: FeeRates
    fee_asset_prices: dict[str, dict[str, int]]


DEFAULTS: Final = {
    DialectName.BINANCE: VenueDefaults(
        DEFAULT_SYMBOLS,
        DEFAULT_ASSETS,
        DEFAULT_BALANCES,
        FeeRates(),
        DEFAULT_FEE_ASSET_PRICES,
    ),
    DialectName.KRAKEN: VenueDefaults(
        KRAKEN_SYMBOLS,
        KRAKEN_ASSETS,
        KRAKEN_BALANCES,
        FeeRates(2_500, 4_000),
        KRAKEN_FEE_ASSET_PRICES,
    ),
}


def derived_key(seed: int, account: str, kind: str) -> str:
    """A 64-character API key or secret of an account; the same for the same seed."""
    return hashlib.sha256(f"causeway-venue/{seed}/{account}/{kind}".encode()).hexdigest()


def derived_secret(seed: int, account: str, kind: str, dialect: DialectName) -> str:
    """A secret of an account: for Kraken 64 bytes in base64, else 64 characters."""
    if dialect is DialectName.KRAKEN:
        text = f"causeway-venue/{seed}/{account}/{kind}"
        return base64.b64encode(hashlib.sha512(text.encode()).digest()).decode()
    return derived_key(seed, account, kind)


def account_spec(
    seed: int,
    name: str = DEFAULT_ACCOUNT,
    *,
    balances: dict[str, int] | None = None,
    api_key: str = "",
    secret: str = "",
    fees: FeeRates | None = None,
    dialect: DialectName = DialectName.BINANCE,
    trading_key_can_withdraw: bool = False,
) -> AccountSpec:
    """An account with default balances, and with keys derived from the seed unless given.

    It has a second key, which may withdraw and not trade.
    """
    defaults = DEFAULTS[dialect]
    withdrawal_key = ApiKeySpec(
        derived_key(seed, name, "withdraw-api-key"),
        derived_secret(seed, name, "withdraw-secret", dialect),
        ("read", "withdraw"),
    )
    return AccountSpec(
        name=name,
        api_key=api_key or derived_key(seed, name, "api-key"),
        secret=secret or derived_secret(seed, name, "secret", dialect),
        balances=dict(defaults.balances if balances is None else balances),
        fees=fees or defaults.fees,
        permissions=("read", "trade", "withdraw")
        if trading_key_can_withdraw
        else ("read", "trade"),
        keys=(withdrawal_key,),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueSimulatorSettings:
    """How to run a simulator.

    `data_dir` holds the journal. Empty `symbols` and `assets` are the dialect's usual ones; an empty
    `accounts` makes one account named `desk`.
    `step_interval_ms` 0 keeps the market maker still until it is told to move.
    `withdrawal_delay_ms` None leaves withdrawals in process until they are settled by hand.
    `checkpoint_every` commands an image of the state is written, which shortens the next start.
    `record_to` is written with what everybody sees; `replay_from` is a recording to be seen instead of
    the synthetic market, at `replay_speed` times its own pace (see `replay`).
    `weight_limit_1m` is announced always and enforced only with `enforce_weight`.
    """

    data_dir: Path
    dialect: DialectName = DialectName.BINANCE
    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 1
    symbols: tuple[SymbolSpec, ...] = ()
    assets: tuple[AssetSpec, ...] = ()
    accounts: tuple[AccountSpec, ...] = ()
    maker: MakerSpec = DEFAULT_MAKER
    fee_asset_prices: dict[str, dict[str, int]] | None = None
    withdrawal_delay_ms: int | None = 0
    step_interval_ms: int = 250
    depth_interval_ms: int = 100
    weight_limit_1m: int = 6_000
    enforce_weight: bool = False
    checkpoint_every: int = 20_000
    fsync: bool = True
    faults: Schedule | None = None
    record_to: Path | None = None
    replay_from: Path | None = None
    replay_speed: float = 1.0

    def genesis(self, at_ms: int) -> Genesis:
        """The record a fresh journal begins with.

        Raises:
            SettingsInvalid: the settings contradict themselves.
        """
        accounts = self.accounts or (account_spec(self.seed, dialect=self.dialect),)
        symbols = self.symbols or DEFAULTS[self.dialect].symbols
        assets = self.assets or with_assets_of(symbols, self.dialect)
        prices = self.fee_asset_prices
        prices = DEFAULTS[self.dialect].fee_asset_prices if prices is None else prices
        _validate(symbols, assets, accounts)
        if not self.replay_speed > 0:
            raise SettingsInvalid(f"replay speed {self.replay_speed}: it must be above 0")
        return Genesis(
            seed=self.seed,
            dialect=self.dialect.value,
            symbols=symbols,
            assets=assets,
            accounts=accounts,
            maker=self.maker,
            fee_asset_prices=prices,
            withdrawal_delay_ms=self.withdrawal_delay_ms,
            at_ms=at_ms,
        )


def with_assets_of(
    symbols: tuple[SymbolSpec, ...], dialect: DialectName = DialectName.BINANCE
) -> tuple[AssetSpec, ...]:
    """The default assets and, for other ones that symbols name, an asset on a chain of its own."""
    usual = DEFAULTS[dialect].assets
    known = {asset.name for asset in usual}
    named = dict.fromkeys(name for spec in symbols for name in (spec.base, spec.quote))
    return usual + tuple(
        AssetSpec(name, (NetworkSpec(name, 0, 1, "text"),)) for name in named if name not in known
    )


def symbol_from_text(text: str) -> SymbolSpec:
    """Read `ETH/USDT:tick=0.01:lot=0.0001:min=5:mid=3000`.

    Raises:
        SettingsInvalid: says what is wrong with the text.
    """
    pair, *options = text.split(":")
    base, separator, quote = pair.partition("/")
    values = dict(option.split("=", 1) for option in options if "=" in option)
    if not separator or set(values) != {"tick", "lot", "min", "mid"}:
        raise SettingsInvalid(
            f"symbol {text!r}: write it like ETH/USDT:tick=0.01:lot=0.0001:min=5:mid=3000"
        )
    try:
        units = {name: units_from_text(name, value) for name, value in values.items()}
    except VenueRefusal as refusal:
        raise SettingsInvalid(f"symbol {text!r}: {refusal.text}") from refusal
    if not units["tick"] or units["mid"] % units["tick"]:
        raise SettingsInvalid(f"symbol {text!r}: mid must be a multiple of a positive tick")
    mid_ticks = units["mid"] // units["tick"]
    tick, lot = units["tick"], units["lot"]
    return SymbolSpec(base + quote, base, quote, tick, lot, units["min"], mid_ticks)


def _validate(
    symbols: tuple[SymbolSpec, ...],
    assets: tuple[AssetSpec, ...],
    accounts: tuple[AccountSpec, ...],
) -> None:
    known = {asset.name for asset in assets}
    for spec in symbols:
        if spec.tick_units <= 0 or spec.lot_units <= 0 or spec.mid_ticks <= 0:
            raise SettingsInvalid(f"{spec.name}: tick, lot and mid must be positive")
        if missing := {spec.base, spec.quote} - known:
            raise SettingsInvalid(f"{spec.name}: no asset is configured for {sorted(missing)}")
    for kind, values in (
        ("symbol name", [spec.name for spec in symbols]),
        ("account name", [account.name for account in accounts]),
        ("API key", [key.api_key for account in accounts for key in account.all_keys()]),
    ):
        if len(set(values)) < len(values):
            raise SettingsInvalid(f"a {kind} is used twice")
    if reserved := {HOUSE, FLOW} & {account.name for account in accounts}:
        raise SettingsInvalid(f"account names {sorted(reserved)} are reserved")
