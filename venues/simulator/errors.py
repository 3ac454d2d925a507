"""Errors of the simulator.

    VenueRefusal       what a client is answered: a Binance code and message
    SimulatorError     what stops the simulator itself
      PortTaken
      JournalMismatch
      JournalDamaged
      JournalInUse
      SettingsInvalid

Source of codes and messages: binance/binance-spot-api-docs, errors.md.
"""


class VenueRefusal(Exception):
    """A request the venue answers with an error body `{"code": code, "msg": text}`."""

    def __init__(self, code: int, text: str, status: int = 400) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.status = status


class SimulatorError(Exception):
    """The simulator cannot start or go on."""


class PortTaken(SimulatorError):
    """The port to listen on belongs to another process."""


class JournalMismatch(SimulatorError):
    """The data directory was written under other settings."""


class JournalDamaged(SimulatorError):
    """A record before the last one cannot be read or cannot be applied."""


class JournalInUse(SimulatorError):
    """Another simulator writes to the data directory."""


class SettingsInvalid(SimulatorError):
    """Settings that contradict themselves."""


def insufficient_balance() -> VenueRefusal:
    """The order costs more than the account has free."""
    return VenueRefusal(-2010, "Account has insufficient balance for requested action.")


def duplicate_order() -> VenueRefusal:
    """An open order of the account carries this client order id."""
    return VenueRefusal(-2010, "Duplicate order sent.")


def would_take() -> VenueRefusal:
    """A LIMIT_MAKER order would trade at once."""
    return VenueRefusal(-2010, "Order would immediately match and take.")


def no_liquidity() -> VenueRefusal:
    """A market order sized in quote asset found an empty book."""
    return VenueRefusal(-2010, "Order book liquidity is less than symbol minimum quantity.")


def unknown_order_to_cancel() -> VenueRefusal:
    """The order to cancel does not exist or is not open."""
    return VenueRefusal(-2011, "Unknown order sent.")


def no_such_order() -> VenueRefusal:
    """The order asked for does not exist."""
    return VenueRefusal(-2013, "Order does not exist.")


def missing(parameter: str) -> VenueRefusal:
    """A mandatory parameter is absent or empty."""
    return VenueRefusal(
        -1102, f"Mandatory parameter '{parameter}' was not sent, was empty/null, or malformed."
    )


def illegal_characters(parameter: str, legal: str) -> VenueRefusal:
    """A parameter does not have the form it must have."""
    return VenueRefusal(
        -1100, f"Illegal characters found in parameter '{parameter}'; legal range is '{legal}'."
    )


def too_precise(parameter: str) -> VenueRefusal:
    """A number has more decimals than the venue counts in."""
    return VenueRefusal(-1111, f"Parameter '{parameter}' has too much precision.")


def filter_failure(name: str) -> VenueRefusal:
    """An order broke one of the symbol's filters."""
    return VenueRefusal(-1013, f"Filter failure: {name}")
