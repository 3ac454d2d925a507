"""Balances of one account: free and locked units per asset."""


class Wallet:
    """Mutable balances that refuse to go below zero."""

    def __init__(
        self, free_units: dict[str, int], locked_units: dict[str, int] | None = None
    ) -> None:
        self._free = dict(free_units)
        self._locked = dict(locked_units or {})

    def free(self, asset: str) -> int:
        """Units that can be spent."""
        return self._free.get(asset, 0)

    def locked(self, asset: str) -> int:
        """Units held by open orders."""
        return self._locked.get(asset, 0)

    def assets(self) -> tuple[str, ...]:
        """Assets the account ever held, sorted."""
        return tuple(sorted(self._free.keys() | self._locked.keys()))

    def credit(self, asset: str, units: int) -> None:
        """Add units to what is free."""
        assert units >= 0
        self._free[asset] = self.free(asset) + units

    def debit(self, asset: str, units: int) -> None:
        """Take units from what is free."""
        assert 0 <= units <= self.free(asset), f"debit of {units} {asset} from {self.free(asset)}"
        self._free[asset] = self.free(asset) - units

    def lock(self, asset: str, units: int) -> None:
        """Move units from free to locked."""
        self.debit(asset, units)
        self._locked[asset] = self.locked(asset) + units

    def unlock(self, asset: str, units: int) -> None:
        """Move units from locked to free."""
        assert 0 <= units <= self.locked(asset)
        self._locked[asset] = self.locked(asset) - units
        self.credit(asset, units)

    def set_free(self, asset: str, units: int) -> None:
        """Overwrite what is free."""
        self._free[asset] = units
