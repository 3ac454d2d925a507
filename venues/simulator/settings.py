"""Settings of a simulator and the genesis record that follows from them."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from venues.simulator.decimals import UNIT, units_from_text
from venues.simulator.errors import SettingsInvalid, VenueRefusal
from venues.simulator.model import (
    FLOW,
    HOUSE,
    AccountSpec,
    AssetSpec,
    FeeRates,
    Genesis,
    MakerSpec,
    NetworkSpec,
    SymbolSpec,
)

DEFAULT_ACCOUNT: Final = "desk"

DEFAULT_SYMBOLS: Final = (
    SymbolSpec("ETHUSDT", "ETH", "USDT", UNIT // 100, UNIT // 10_000, 5 * UNIT, 300_000),
    SymbolSpec("BTCUSDT", "BTC", "USDT", UNIT // 100, UNIT // 100_000, 5 * UNIT, 6_000_000),
)

DEFAULT_ASSETS: Final = (
    AssetSpec("BTC", (NetworkSpec("BTC", UNIT // 10_000, UNIT // 1_000, "bitcoin"),)),
    AssetSpec("ETH", (NetworkSpec("ETH", UNIT // 2_000, UNIT // 100, "evm"),)),
    AssetSpec("USDT", (NetworkSpec("ETH", 1 * UNIT, 10 * UNIT, "evm"),)),
    AssetSpec("USDC", (NetworkSpec("ETH", 1 * UNIT, 10 * UNIT, "evm"),)),
    AssetSpec("BNB", (NetworkSpec("BSC", UNIT // 10_000, UNIT // 100, "evm"),)),
)

DEFAULT_BALANCES: Final = {
    "BTC": 50 * UNIT,
    "ETH": 1_000 * UNIT,
    "USDT": 5_000_000 * UNIT,
    "BNB": 100 * UNIT,
}

DEFAULT_MAKER: Final = MakerSpec()

DEFAULT_FEE_ASSET_PRICES: Final = {"BNB": {"USDT": 600 * UNIT}}


def derived_key(seed: int, account: str, kind: str) -> str:
    """A 64-character API key or secret of an account; the same for the same seed."""
    return hashlib.sha256(f"causeway-venue/{seed}/{account}/{kind}".encode()).hexdigest()


def account_spec(
    seed: int,
    name: str = DEFAULT_ACCOUNT,
    *,
    balances: dict[str, int] | None = None,
    api_key: str = "",
    secret: str = "",
    fees: FeeRates | None = None,
) -> AccountSpec:
    """An account with default balances and with keys derived from the seed, unless given."""
    return AccountSpec(
        name=name,
        api_key=api_key or derived_key(seed, name, "api-key"),
        secret=secret or derived_key(seed, name, "secret"),
        balances=dict(DEFAULT_BALANCES if balances is None else balances),
        fees=fees or FeeRates(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueSimulatorSettings:
    """How to run a simulator.

    `data_dir` holds the journal. An empty `accounts` makes one account named `desk`.
    `step_interval_ms` 0 keeps the market maker still until it is told to move.
    `withdrawal_delay_ms` None leaves withdrawals in process until they are settled by hand.
    `checkpoint_every` commands an image of the state is written, which shortens the next start.
    `weight_limit_1m` is announced always and enforced only with `enforce_weight`.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 1
    symbols: tuple[SymbolSpec, ...] = DEFAULT_SYMBOLS
    assets: tuple[AssetSpec, ...] = DEFAULT_ASSETS
    accounts: tuple[AccountSpec, ...] = ()
    maker: MakerSpec = DEFAULT_MAKER
    fee_asset_prices: dict[str, dict[str, int]] = field(
        default_factory=lambda: dict(DEFAULT_FEE_ASSET_PRICES)
    )
    withdrawal_delay_ms: int | None = 0
    step_interval_ms: int = 250
    depth_interval_ms: int = 100
    weight_limit_1m: int = 6_000
    enforce_weight: bool = False
    checkpoint_every: int = 20_000
    fsync: bool = True

    def genesis(self, at_ms: int) -> Genesis:
        """The record a fresh journal begins with.

        Raises:
            SettingsInvalid: the settings contradict themselves.
        """
        accounts = self.accounts or (account_spec(self.seed),)
        _validate(self.symbols, self.assets, accounts)
        return Genesis(
            seed=self.seed,
            symbols=self.symbols,
            assets=self.assets,
            accounts=accounts,
            maker=self.maker,
            fee_asset_prices=self.fee_asset_prices,
            withdrawal_delay_ms=self.withdrawal_delay_ms,
            at_ms=at_ms,
        )


def with_assets_of(symbols: tuple[SymbolSpec, ...]) -> tuple[AssetSpec, ...]:
    """The default assets and, for other ones that symbols name, an asset on a chain of its own."""
    known = {asset.name for asset in DEFAULT_ASSETS}
    named = dict.fromkeys(name for spec in symbols for name in (spec.base, spec.quote))
    return DEFAULT_ASSETS + tuple(
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
        if spec.tick_units * spec.lot_units % UNIT:
            raise SettingsInvalid(f"{spec.name}: one lot at one tick is not whole in 1e-8 of quote")
        if missing := {spec.base, spec.quote} - known:
            raise SettingsInvalid(f"{spec.name}: no asset is configured for {sorted(missing)}")
    for kind, values in (
        ("symbol name", [spec.name for spec in symbols]),
        ("account name", [account.name for account in accounts]),
        ("API key", [account.api_key for account in accounts]),
    ):
        if len(set(values)) < len(values):
            raise SettingsInvalid(f"a {kind} is used twice")
    if reserved := {HOUSE, FLOW} & {account.name for account in accounts}:
        raise SettingsInvalid(f"account names {sorted(reserved)} are reserved")
