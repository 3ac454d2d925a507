"""Ids of what compliance keeps: made from what it is about, so that nothing is opened twice. Pure."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from custody.compliance.model import Subject
from kernel.ids import derive_id


def case_id(subject: Subject, subject_id: UUID, epoch: int, opened_at: datetime) -> UUID:
    """Return the id of the case about *subject_id* in its *epoch*."""
    return derive_id(opened_at, "compliance_case", str(subject), subject_id, epoch)
