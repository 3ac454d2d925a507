"""The signer: the only code that touches chain private keys, in a process of its own.

Nouns: a keystore (one seed, envelope-encrypted), rules (pinned operators, limits, chains), the
memory of what was signed, an intent. Verbs: ``account_xpub``, ``sign``, ``health``, over a Unix
socket that only the same user may open.

It trusts nobody who asks. It reads the transaction's bytes again, and signs only a native send or
an ERC-20 transfer that equals the intent, that enough pinned operators have approved with their own
signatures, and that is within its own limits. Its memory, which it writes before it answers, holds
at most one payment for a nonce and one nonce for a payout; the same request again gets the same
bytes.

It is not a wallet: it knows no balances, no database and no network, and it never broadcasts.
`custody.signer.client` is what everyone else imports; it loads no key code.
"""
