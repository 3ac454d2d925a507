"""Confirmations: what a client's back office reads of a deal, and what it answers.

Nouns: a *trade* is a deal and the deals that replaced it, known by the first one's id; a
`Confirmation` is one version of what both sides agreed in it, as text with its SHA-256 and as PDF; an
`Affirmation` is what the other side said to it; a `ConfirmationKey` is the key with which it says so.
Verbs: `issuing.issue_confirmation`, `issuing.issue_due`, `drawing.draw_confirmation`,
`affirming.affirm_by_signature`, `affirming.affirm_by_evidence`, `affirming.dispute`,
`keys.enrol_key`, `keys.revoke_key`; `queries.list_unaffirmed` is the list that operations works off.

It is not a place that decides anything about a deal, nor one that sends mail: an issued confirmation
is an event in the outbox, and a file that `causeway desk confirm` writes.

Must be preserved: every economic state of a trade (booked, replaced, cancelled) has exactly one
version, and versions count from 1 without gaps; a text never changes once it is written, and its
PDF is drawn from the text alone; only the newest version of a trade can be affirmed; nobody who
booked or cancelled a deal affirms that for the other side.
"""
