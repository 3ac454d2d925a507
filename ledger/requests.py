"""What a caller asks, made ready to decide: checked for what no book could store, and half written out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from kernel.errors import BadInput
from ledger.form import check_form, check_id, may_be_all
from ledger.model import ALL, Kind, Transfer
from ledger.opaque import (
    CODE_LENGTH_MAX,
    canonical_metadata,
    is_short_token,
    metadata_hash,
    require_token,
)
from ledger.records import microseconds, tail_of, user_data_of, uuid_text
from ledger.state import Request

NO_TIME: Final = timedelta(0)


def prepare(item: Transfer) -> Request:
    """Return a request ready to decide, refusing what no book could store.

    Raises:
        BadInput: names the transfer's field.
    """
    amount = item.amount
    if type(amount) is not int:
        raise BadInput(f"transfer {item.id}: the amount {amount!r} is not an integer")
    if amount < 0 and not (amount == ALL and may_be_all(item)):
        raise BadInput(f"transfer {item.id}: the amount {amount} is negative")
    if item.timeout is not None and item.timeout < NO_TIME:
        raise BadInput(f"transfer {item.id}: the timeout {item.timeout} is negative")
    _require_texts(item)
    if item.effective_at is not None:
        _require_time(item, item.effective_at)
    metadata = hashed = ""
    if item.metadata:
        metadata = canonical_metadata(item.metadata)
        hashed = metadata_hash(metadata)
    flags = item.flags
    fault = check_id(item) or check_form(item, flags)
    return Request(
        item,
        item.kind is Kind.SINGLE
        and not flags
        and fault is None
        and not item.linked
        and item.effective_at is None,
        uuid_text(item.id),
        (item.debit, item.asset),
        (item.credit, item.asset),
        flags,
        fault,
        metadata,
        hashed,
        tail_of(
            item.code, item.pending_id, item.reverses, item.purpose, microseconds(item.timeout)
        ),
        user_data_of(item.reference, item.correlation, hashed),
    )


def _require_time(item: Transfer, effective_at: datetime) -> None:
    if effective_at.tzinfo is None:
        raise BadInput(f"transfer {item.id}: effective_at has no time zone")
    try:
        effective_at.astimezone(UTC)
    except OverflowError as error:
        raise BadInput(
            f"transfer {item.id}: effective_at {effective_at.isoformat()} is no time in UTC"
        ) from error


def _require_texts(item: Transfer) -> None:
    if (
        is_short_token(item.code)
        and is_short_token(item.debit)
        and is_short_token(item.credit)
        and is_short_token(item.asset)
        and is_short_token(item.purpose)
        and not item.reference
    ):
        return
    require_token(item.debit, "debited account")
    require_token(item.credit, "credited account")
    require_token(item.asset, "asset code", CODE_LENGTH_MAX)
    require_token(item.code, "code", CODE_LENGTH_MAX)
    require_token(item.purpose, "purpose", CODE_LENGTH_MAX)
    require_token(item.reference, "reference")
