"""Errors of the simulator.

VenueRefusal       why the venue does not do what it was asked; each dialect spells it
SimulatorError     what stops the simulator itself
PortTaken
JournalMismatch
JournalDamaged
JournalInUse
SettingsInvalid
RecordingInvalid
"""

from enum import Enum, unique


@unique
class Refusal(Enum):
    """Why a command or a number is refused, in no dialect's words."""

    MALFORMED = "a number is not a plain decimal"
    TOO_PRECISE = "a number has more decimals than the venue counts in"
    OFF_GRID = "a price or quantity is no multiple of the symbol's tick or lot, or out of bounds"
    BELOW_MINIMUM = "the order or withdrawal is smaller than the venue takes"
    UNKNOWN_SYMBOL = "there is no such symbol"
    UNKNOWN_ASSET = "there is no such asset"
    UNKNOWN_NETWORK = "the asset does not move over this network"
    UNKNOWN_ORDER = "there is no such open order"
    UNKNOWN_WITHDRAWAL = "there is no such withdrawal in process"
    UNKNOWN_ADDRESS = "there is no such saved address"
    DUPLICATE_ORDER = "an open order of the account carries this client id"
    INSUFFICIENT_FUNDS = "the account has less free than this needs"
    NO_LIQUIDITY = "a market order sized in the quote asset finds too little to trade with"
    WOULD_TAKE = "a post-only order would trade at once"
    WOULD_TRIGGER = "the trigger price has been passed already"
    INVALID_AMENDMENT = "the order cannot be changed like this"
    INVALID_ORDER = "the order's options contradict each other"


class VenueRefusal(Exception):
    """The venue refuses; nothing changed. `subject` names the parameter it is about, if one is."""

    def __init__(self, refusal: Refusal, text: str = "", *, subject: str = "") -> None:
        super().__init__(f"{refusal.name}: {text or refusal.value}")
        self.refusal = refusal
        self.text = text or refusal.value
        self.subject = subject


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
    """Settings that contradict themselves or that cannot be read."""


class RecordingInvalid(SimulatorError):
    """A recording that cannot be read or that does not fit the venue."""
