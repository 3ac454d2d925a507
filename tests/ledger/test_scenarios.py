"""What the ledger answers, one table a rule: the transfer on the left, the outcome last.

Each story is played in a fresh book; `ledger.scenarios` describes the notation.
"""

from __future__ import annotations

from textwrap import dedent

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.outcome import Outcome
from ledger.scenarios import play

STORIES = {
    "a transfer moves the amount, and its replay is answered by what is recorded": """
        a  move  custody:w  client:a  10 X  -> created
        a  move  custody:w  client:a  10 X  -> exists

        a  move  custody:w  client:a  10 X  -> exists
        = client:a  10 X
        = custody:w  10 X
    """,
    "other content under a recorded id is named by the first field that differs": """
        a  move  custody:w  client:a  10 X  reference=r          -> created
        h  hold  custody:w  client:a  10 X  purpose=p timeout=5s -> created
        a  hold  custody:w  client:a  10 X  reference=r          -> exists_with_different_flags
        a  move  custody:w  client:a  10 X  reference=r balancing_debit -> exists_with_different_flags
        a  move  custody:w  client:a  10 X  reference=r pending=h -> exists_with_different_pending_id
        a  move  custody:w  client:a  10 X  reference=r reverses=h -> exists_with_different_reverses
        h  hold  custody:w  client:a  10 X  purpose=p            -> exists_with_different_timeout
        a  move  custody:v  client:b  11 X                       -> exists_with_different_debit_account_id
        a  move  custody:w  client:b  11 X                       -> exists_with_different_credit_account_id
        a  move  custody:w  client:a  11 X                       -> exists_with_different_amount
        a  move  custody:w  client:a  10 X                       -> exists_with_different_user_data
        a  move  custody:w  client:a  10 Y  reference=r          -> exists_with_different_ledger
        a  move  custody:w  client:a  10 X  reference=r code=other -> exists_with_different_code
        = client:a  10 X  incoming 10
    """,
    "idempotency comes before any other check": """
        a  move  custody:w  client:a  10 X  -> created
        b  move  client:a   custody:w  10 X  -> created
        freeze client:a X
        a  move  custody:w  client:a  10 X  -> exists
        c  move  custody:w  client:a  10 X  -> credit_account_frozen
        c  move  custody:w  client:a  10 X  -> id_already_failed credit_account_frozen
        unfreeze client:a X
        c  move  custody:w  client:a  10 X  -> id_already_failed credit_account_frozen
        d  move  custody:w  client:a  10 X  -> created
    """,
    "malformed requests spend no id, and are named in order": """
        a  expire  h                                   -> reserved_flag
        a  move  custody:w  client:a  1 X  id=0        -> id_must_not_be_zero
        a  post  h  balancing_debit                    -> flags_are_mutually_exclusive
        a  move  -  client:a  1 X                      -> debit_account_id_must_not_be_zero
        a  move  custody:w  -  1 X                     -> credit_account_id_must_not_be_zero
        a  move  custody:w  custody:w  0 X             -> accounts_must_be_different
        a  move  custody:w  client:a  1 X  pending=h   -> pending_id_must_be_zero
        a  post  h  pending=0                          -> pending_id_must_not_be_zero
        a  post  h  pending=a                          -> pending_id_must_be_different
        a  move  custody:w  client:a  1 X  reverses=h  -> reverses_must_be_zero
        a  reverse  h  reverses=0                      -> reverses_must_not_be_zero
        a  reverse  a                                  -> reverses_must_be_different
        a  move  custody:w  client:a  1 X  timeout=1s  -> timeout_reserved_for_pending_transfer
        a  move  custody:w  client:a  1 X  closing_debit -> closing_transfer_must_be_pending
        a  move  custody:w  client:a  1 X  asset=-     -> ledger_must_not_be_zero
        a  move  custody:w  client:a  1 X  code=-      -> code_must_not_be_zero
        a  move  custody:w  client:a  1 X              -> created
    """,
    "an account that is not there spends the id": """
        a  move  ?client:x  ?client:y  1 X  -> debit_account_not_found
        b  move  custody:w  ?client:y  1 X  -> credit_account_not_found
        a  move  custody:w  client:a   1 X  -> id_already_failed debit_account_not_found
    """,
    "a client cannot spend what it has not, nor what is held": """
        a  move  custody:w  client:a  10 X                  -> created
        b  hold  client:a  in-flight:evm  7 X               -> created
        c  move  client:a  in-flight:evm  4 X               -> exceeds_credits
        d  move  client:a  in-flight:evm  3 X               -> created
        e  move  client:a  in-flight:evm  0 X               -> created
        = client:a  7 X  available 0
    """,
    "an account may be capped on the credit side instead": """
        cap bank:main X
        a  move  bank:main  equity:capital  10 X  -> created
        b  hold  client:a  bank:main  11 X        -> exceeds_credits
        c  move  suspense:x  bank:main  11 X      -> exceeds_debits
        d  hold  suspense:x  bank:main  10 X      -> created
        e  move  suspense:x  bank:main  1 X       -> exceeds_debits
        = bank:main  10 X  available 0
    """,
    "facts are never refused: custody may stand on the other side": """
        a  move  in-flight:evm  custody:w  5 X  -> created
        = custody:w  -5 X
        = in-flight:evm  -5 X
    """,
    "a hold is resolved once: posted": """
        h  hold  custody:w  client:a  10 X  -> created
        = client:a  0 X  incoming 10
        p  post  h                          -> created
        = client:a  10 X
        q  post  h                          -> pending_transfer_already_posted
        v  void  h                          -> pending_transfer_already_posted
        p  post  h                          -> exists
        p  post  h  10                      -> exists
        p  post  h  11                      -> exists
        p  post  h  9                       -> exists_with_different_amount
    """,
    "a hold is resolved once: posted in part, the rest released": """
        h  hold  custody:w  client:a  10 X  -> created
        o  post  h  11                      -> exceeds_pending_transfer_amount
        p  post  h  4                       -> created
        = client:a  4 X
        p  post  h  4                       -> exists
        p  post  h                          -> exists_with_different_amount
        p  post  h  5                       -> exists_with_different_amount
        q  post  h  6                       -> pending_transfer_already_posted
    """,
    "a hold is resolved once: voided": """
        h  hold  custody:w  client:a  10 X  -> created
        v  void  h  4                       -> pending_transfer_has_different_amount
        v  void  h                          -> created
        w  void  h  10                      -> pending_transfer_already_voided
        p  post  h                          -> pending_transfer_already_voided
        v  void  h  0                       -> exists
        v  void  h  10                      -> exists
        = client:a  0 X
    """,
    "a hold made and resolved in one batch": """
        h  hold  custody:w  client:a  10 X  -> created
        p  post  h                          -> created
        i  hold  custody:w  client:a  10 X  -> created
        v  void  i                          -> created
        = client:a  10 X
    """,
    "posting nothing of a hold releases all of it": """
        h  hold  custody:w  client:a  10 X  -> created
        p  post  h  0                       -> created
        = client:a  0 X
    """,
    "a hold expires exactly at its deadline": """
        a  move  custody:w  client:a  10 X                  -> created
        h  hold  client:a  in-flight:evm  7 X  timeout=5s   -> created
        @ +4.9s
        = client:a  10 X  available 3
        @ +0.1s
        = client:a  10 X
        p  post  h                                          -> pending_transfer_expired
        v  void  h                                          -> pending_transfer_expired
    """,
    "a hold of no duration has expired at once": """
        h  hold  custody:w  client:a  7 X  timeout=0s  -> created
        p  post  h                                     -> pending_transfer_expired
        @ +0s
        = client:a  0 X
    """,
    "a post or void names its hold rightly": """
        a  move  custody:w  client:a  10 X          -> created
        h  hold  custody:w  client:a  10 X          -> created
        p  post  nothing                            -> pending_transfer_not_found
        q  post  a                                  -> pending_transfer_not_pending
        r  post  h  debit=custody:v                 -> pending_transfer_has_different_debit_account_id
        r  post  h  credit=client:b                 -> pending_transfer_has_different_credit_account_id
        r  post  h  asset=Y                         -> pending_transfer_has_different_ledger
        r  post  h  debit=custody:w credit=client:a asset=X -> created
        p  post  h                                  -> id_already_failed pending_transfer_not_found
    """,
    "a chain is applied as a whole": """
        + a  move  custody:w  client:a  10 X  -> created
        + b  move  client:a  client:b  4 X    -> created
          c  move  client:b  client:c  4 X    -> created
        = client:c  4 X

        + a  move  custody:w  client:a  10 X  -> exists
        + b  move  client:a  client:b  4 X    -> exists
          c  move  client:b  client:c  4 X    -> exists
        = client:c  4 X
    """,
    "a chain is refused as a whole; only the member that failed has spent its id": """
        + a  move  custody:w  client:a  10 X  -> linked_event_failed
        + b  hold  client:a  client:b  4 X    -> linked_event_failed
        + c  move  client:a  client:c  7 X    -> exceeds_credits
          d  move  custody:w  client:d  1 X   -> linked_event_failed
          e  move  custody:w  client:e  1 X   -> created
        = client:a  0 X
        = client:b  0 X
        = client:d  0 X
        = client:e  1 X

        + a  move  custody:w  client:a  10 X  -> linked_event_failed
          c  move  client:a  client:c  7 X    -> id_already_failed exceeds_credits

        + a  move  custody:w  client:a  10 X  -> created
          f  move  client:a  client:c  7 X    -> created
        = client:a  3 X
    """,
    "chains of a batch are independent, and each sees what those before it left": """
        + a  move  custody:w  client:a  10 X  -> linked_event_failed
          b  move  client:a  client:b  11 X   -> exceeds_credits
        + c  move  custody:w  client:a  10 X  -> created
          d  move  client:a  client:b  10 X   -> created
        = client:b  10 X
    """,
    "a batch cannot end inside a chain": """
        + a  move  custody:w  client:a  10 X  -> linked_event_failed
        + b  move  custody:w  client:a  10 X  -> linked_event_chain_open

        + c  move  custody:w  client:a  10 X  -> linked_event_chain_open

        + d  move  client:a  client:b  10 X   -> exceeds_credits
        + e  move  custody:w  client:a  10 X  -> linked_event_chain_open

          a  move  custody:w  client:a  10 X  -> created
          b  move  custody:w  client:a  10 X  -> created
    """,
    "a chain is never completed piecemeal": """
        a  move  custody:w  client:a  10 X    -> created
        + n  move  custody:w  client:a  1 X   -> linked_event_failed
        + a  move  custody:w  client:a  10 X  -> exists
          m  move  custody:w  client:a  1 X   -> linked_event_failed
        = client:a  10 X
    """,
    "a chain that names one id twice is never applied": """
        + a  move  custody:w  client:a  10 X  -> linked_event_failed
          a  move  custody:w  client:a  10 X  -> linked_event_failed
        + a  move  custody:w  client:a  10 X  -> linked_event_failed
          a  move  custody:w  client:a  11 X  -> exists_with_different_amount
        = client:a  0 X
    """,
    "a reversal undoes a transfer in full, once": """
        a  move  custody:w  client:a  10 X  -> created
        r  reverse  nothing                 -> reversed_transfer_not_found
        s  reverse  a  9                    -> reversed_transfer_has_different_amount
        s  reverse  a  debit=client:b       -> reversed_transfer_has_different_debit_account_id
        s  reverse  a  credit=custody:v     -> reversed_transfer_has_different_credit_account_id
        s  reverse  a  asset=Y              -> reversed_transfer_has_different_ledger
        s  reverse  a                       -> created
        s  reverse  a                       -> exists
        t  reverse  a                       -> reversed_transfer_already_reversed
        u  reverse  s                       -> reversed_transfer_not_reversible
        = client:a  0 X
        = custody:w  0 X
    """,
    "what was posted from a hold can be reversed, the hold cannot": """
        h  hold  custody:w  client:a  10 X  -> created
        r  reverse  h                       -> reversed_transfer_not_reversible
        p  post  h  6                       -> created
        r  reverse  p                       -> created
        = client:a  0 X
    """,
    "a reversal that would overdraw is refused; the shortfall goes first, in the same chain": """
        a  move  custody:w  client:a  10 X  -> created
        b  move  client:a  client:b  4 X    -> created
        r  reverse  a                       -> exceeds_credits
        + s  move  receivable:a:reorg  client:a  4 X  -> created
          t  reverse  a                     -> created
        = client:a  0 X
        = receivable:a:reorg  4 X
    """,
    "a frozen account takes nothing new; its holds are resolved": """
        a  move  custody:w  client:a  10 X   -> created
        h  hold  client:a  in-flight:evm  4 X -> created
        i  hold  client:a  in-flight:evm  4 X -> created
        freeze client:a X
        b  move  client:a  client:b  1 X     -> debit_account_frozen
        c  move  custody:w  client:a  1 X    -> credit_account_frozen
        r  reverse  a                        -> debit_account_frozen
        p  post  h                           -> created
        v  void  i                           -> created
        = client:a  6 X
    """,
    "a balancing transfer moves at most what is available": """
        a  move  custody:w  client:a  10 X                  -> created
        h  hold  client:a  in-flight:evm  3 X               -> created
        b  move  client:a  client:b  20 X  balancing_debit  -> created 7 X
        b  move  client:a  client:b  20 X  balancing_debit  -> exists 7 X
        b  move  client:a  client:b  all X  balancing_debit -> exists 7 X
        b  move  client:a  client:b  6 X  balancing_debit   -> exists_with_different_amount
        c  move  client:a  client:b  5 X  balancing_debit   -> created 0 X
        d  move  client:b  custody:w  all X  balancing_credit -> exceeds_credits
        e  move  client:b  custody:w  all X  balancing_debit balancing_credit -> created 7 X
        = client:a  3 X  available 0
        = client:b  0 X
    """,
    "a closing hold closes an account until it is voided": """
        a  move  custody:w  client:a  10 X                      -> created
        g  hold  custody:w  client:a  1 X                       -> created
        h  hold  custody:w  client:a  0 X  closing_credit       -> created
        b  move  client:a  client:b  1 X                        -> debit_account_already_closed
        c  move  custody:w  client:a  1 X                       -> credit_account_already_closed
        p  post  g                                              -> credit_account_already_closed
        v  void  g                                              -> created
        w  void  h                                              -> created
        d  move  custody:w  client:a  1 X                       -> created
        i  hold  client:a  custody:w  0 X  closing_debit timeout=5s -> created
        e  move  custody:w  client:a  1 X                       -> credit_account_already_closed
        @ +5s
        f  move  custody:w  client:a  1 X                       -> created
        = client:a  12 X
    """,
    "amounts and times outside the stored range": """
        a  move  custody:w  suspense:evm  max X         -> created
        b  move  custody:w  suspense:btc  1 X           -> overflows_debits_posted
        c  move  custody:v  suspense:evm  1 X           -> overflows_credits_posted
        d  hold  custody:w  suspense:btc  1 X           -> overflows_debits
        e  hold  custody:v  suspense:evm  1 X           -> overflows_credits
        f  hold  custody:v  suspense:btc  max X         -> created
        g  hold  custody:v  suspense:usd  1 X           -> overflows_debits_pending
        h  hold  custody:u  suspense:btc  1 X           -> overflows_credits_pending
        i  hold  custody:u  suspense:usd  1 X  timeout=max -> overflows_timeout
        b  move  custody:u  suspense:usd  1 X           -> created
    """,
    "what is reserved to the ledger's own records cannot be asked for": """
        h  hold  custody:w  client:a  5 X  timeout=1s                 -> created
        e  move  custody:w  client:a  1 X  id=reserved                -> id_must_not_be_reserved
        e  move  custody:w  client:a  1 X                             -> created
    """,
    "a batch is history or it is not: its first item says which": """
        since custody:old X 2025-12-01
        since client:old X 2025-12-01
        a  move  custody:old  client:old  5 X  effective=2025-12-02 imported  -> created
        b  move  custody:old  client:old  5 X                                 -> imported_event_expected

        b  move  custody:old  client:old  5 X                                 -> created
        c  move  custody:old  client:old  5 X  effective=2025-12-02 imported  -> imported_event_not_expected

        c  move  custody:old  client:old  5 X  effective=2025-12-02 imported  -> created
        a  move  custody:old  client:old  5 X  effective=2025-12-02 imported  -> exists
        = client:old  15 X
    """,
    "history comes in order, after its accounts and before now": """
        since custody:old X 2025-12-01
        since client:old X 2025-12-01
        since client:mid X 2025-12-20
        a  move  custody:old  client:old  5 X  imported                       -> imported_event_timestamp_out_of_range
        a  move  custody:old  client:old  5 X  imported effective=2026-01-06  -> imported_event_timestamp_must_not_advance
        a  move  custody:old  client:old  5 X  imported effective=2025-12-10  -> created
        b  move  custody:old  client:old  5 X  imported effective=2025-12-09  -> imported_event_timestamp_must_not_regress
        b  move  client:mid  custody:old  5 X  imported effective=2025-12-19  -> imported_event_timestamp_must_postdate_debit_account
        b  move  custody:old  client:mid  5 X  imported effective=2025-12-19  -> imported_event_timestamp_must_postdate_credit_account
        b  hold  custody:old  client:old  5 X  imported effective=2025-12-19 timeout=1s -> imported_event_timeout_must_be_zero
        b  hold  custody:old  client:old  5 X  imported effective=2025-12-19  -> created
        p  post  b  3                          imported effective=2025-12-20  -> created
        r  reverse  p                          imported effective=2025-12-20  -> created
        = client:old  5 X
    """,
    "a chain of history that fails leaves the order of history as it was": """
        since custody:old X 2025-12-01
        since client:old X 2025-12-01
        + a  move  custody:old  client:old  5 X  imported effective=2025-12-20  -> linked_event_failed
          b  move  client:old  custody:old  6 X  imported effective=2025-12-20  -> exceeds_credits

        c  move  custody:old  client:old  5 X  imported effective=2025-12-02  -> created
    """,
    "a closed period takes nothing any more; a reopened one does": """
        a  move  custody:w  client:a  10 X  effective=2026-01-02  -> created
        close-period 2026-01-02
        b  move  custody:w  client:a  1 X  effective=2026-01-02   -> effective_period_closed
        c  move  custody:w  client:a  1 X  effective=2026-01-03   -> created
        d  move  custody:w  client:a  1 X                         -> created
        a  move  custody:w  client:a  10 X  effective=2026-01-02  -> exists
        r  reverse  a  at_original                                -> effective_period_closed
        reopen-period 2026-01-01
        b  move  custody:w  client:a  1 X  effective=2026-01-02   -> id_already_failed effective_period_closed
        e  move  custody:w  client:a  1 X  effective=2026-01-02   -> created
        s  reverse  a  at_original                                -> created
        = client:a  3 X
    """,
    "an old hold is resolved today, also when its period is closed": """
        h  hold  custody:w  client:a  10 X  effective=2026-01-02  -> created
        close-period 2026-01-04
        p  post  h  effective=2026-01-02                          -> effective_period_closed
        q  post  h                                                -> created
        = client:a  10 X
    """,
    "a reversal counts when the original did, or now": """
        a  move  custody:w  client:a  10 X  effective=2026-01-02  -> created
        b  move  custody:w  client:a  10 X                        -> created
        r  reverse  a  at_original                                -> created
        r  reverse  a  at_original                                -> exists
        r  reverse  a                                             -> exists_with_different_flags
        r  reverse  a  at_original effective=2026-01-02           -> exists_with_different_user_data
        s  reverse  b  at_original effective=2026-01-02           -> flags_are_mutually_exclusive
        s  move  custody:w  client:a  1 X  at_original            -> flags_are_mutually_exclusive
        s  reverse  b  effective=2026-01-03                       -> created
        = client:a  0 X
    """,
    "a credit limit lets a guarded account go below, and no further": """
        a  move  custody:w  client:a  10 X  -> created
        limit client:a X 5
        b  hold  client:a  in-flight:evm  12 X  -> created
        c  move  client:a  in-flight:evm  4 X   -> exceeds_credits
        d  move  client:a  in-flight:evm  3 X   -> created
        = client:a  7 X  available -5
        e  move  client:a  client:b  all X  balancing_debit  -> created 0 X

        v  void  b                              -> created
        limit client:a X 0
        f  move  client:a  in-flight:evm  7 X   -> created
        g  move  client:a  in-flight:evm  1 X   -> exceeds_credits
        = client:a  0 X
    """,
    "a closing hold of nothing is voided in a batch of its own": """
        h  hold  custody:w  client:a  0 X  closing_credit  -> created

        a  move  custody:w  client:a  1 X                  -> credit_account_already_closed

        v  void  h                                         -> created

        b  move  custody:w  client:a  1 X                  -> created
        = client:a  1 X
    """,
    "a closed account is closed for both sides, and reopened by its own hold alone": """
        a  move  custody:w  client:a  10 X                       -> created
        g  hold  client:a  in-flight:evm  4 X                    -> created
        h  hold  client:a  suspense:x  6 X  closing_debit        -> created

        b  move  custody:w  client:a  1 X                        -> credit_account_already_closed
        i  hold  client:a  suspense:x  0 X  closing_debit        -> debit_account_already_closed
        p  post  h                                               -> debit_account_already_closed
        v  void  g                                               -> created
        c  move  custody:w  client:a  1 X                        -> credit_account_already_closed

        w  void  h                                               -> created
        d  move  client:a  suspense:x  10 X                      -> created
        = client:a  0 X
    """,
    "a replayed chain is held against the rule of its batch": """
        since custody:old X 2025-12-01
        since client:old X 2025-12-01
        + a  move  custody:w  client:a  10 X  -> created
          b  move  client:a  client:b  4 X    -> created

          z  move  custody:old  client:old  5 X  imported effective=2025-12-02  -> created
        + a  move  custody:w  client:a  10 X  -> imported_event_expected
          b  move  client:a  client:b  4 X    -> imported_event_expected
    """,
}


PRECEDENCE = {
    "chain, mixture, time": """
        a  move  custody:w  client:a  1 X                             -> created
        + b  move  -  -  1 X  id=0 imported                           -> linked_event_chain_open

        a  move  custody:w  client:a  1 X                             -> exists
        b  expire  a  imported                                        -> imported_event_not_expected

        b  expire  a  imported                                        -> imported_event_timestamp_out_of_range

        b  expire  a  imported effective=2026-01-09                   -> imported_event_timestamp_must_not_advance

        b  expire  a  imported effective=2026-01-01 id=0              -> reserved_flag
    """,
    "the id, then what is recorded, then the form": """
        a  move  custody:w  client:a  1 X                             -> created
        b  post  -  id=0 balancing_debit pending=0                    -> id_must_not_be_zero
        b  post  -  id=reserved balancing_debit pending=0             -> id_must_not_be_reserved
        a  post  -  balancing_debit pending=0                         -> exists_with_different_flags
        g  move  client:a  custody:w  9 X                             -> exceeds_credits
        g  post  -  balancing_debit pending=0                         -> id_already_failed exceeds_credits
    """,
    "every field that differs, from the first to the last": """
        h  hold  custody:w  client:a  5 X  timeout=9s purpose=p                                -> created
        i  hold  custody:w  client:a  5 X                                                      -> created
        h  move  client:a  custody:w  6 Y  code=c pending=i reverses=i timeout=8s purpose=q    -> exists_with_different_flags
        h  hold  client:a  custody:w  6 Y  code=c pending=i reverses=i timeout=8s purpose=q    -> exists_with_different_pending_id
        h  hold  client:a  custody:w  6 Y  code=c reverses=i timeout=8s purpose=q              -> exists_with_different_reverses
        h  hold  client:a  custody:w  6 Y  code=c timeout=8s purpose=q                         -> exists_with_different_timeout
        h  hold  client:a  custody:w  6 Y  code=c timeout=9s purpose=q                         -> exists_with_different_debit_account_id
        h  hold  custody:w  custody:w  6 Y  code=c timeout=9s purpose=q                        -> exists_with_different_credit_account_id
        h  hold  custody:w  client:a  6 Y  code=c timeout=9s purpose=q                         -> exists_with_different_amount
        h  hold  custody:w  client:a  5 Y  code=c timeout=9s purpose=q                         -> exists_with_different_user_data
        h  hold  custody:w  client:a  5 Y  code=c timeout=9s purpose=p                         -> exists_with_different_ledger
        h  hold  custody:w  client:a  5 X  code=c timeout=9s purpose=p                         -> exists_with_different_code
        h  hold  custody:w  client:a  5 X  timeout=9s purpose=p                                -> exists
    """,
    "the form, from the first fault to the last": """
        a  post  -  debit=custody:w credit=custody:w pending=0 reverses=x timeout=1s code=- balancing_debit -> flags_are_mutually_exclusive
        a  move  -  -  1 -  pending=x reverses=x timeout=1s code=- closing_debit        -> debit_account_id_must_not_be_zero
        a  move  custody:w  -  1 -  pending=x reverses=x timeout=1s code=- closing_debit -> credit_account_id_must_not_be_zero
        a  move  custody:w  custody:w  1 -  asset=- pending=x reverses=x timeout=1s code=- closing_debit -> accounts_must_be_different
        a  move  custody:w  client:a  1 -  asset=- pending=x reverses=x timeout=1s code=- closing_debit -> pending_id_must_be_zero
        a  post  -  pending=0 reverses=x timeout=1s code=-                              -> pending_id_must_not_be_zero
        a  post  a  reverses=x timeout=1s code=-                                        -> pending_id_must_be_different
        a  move  custody:w  client:a  1 -  asset=- reverses=x timeout=1s code=- closing_debit -> reverses_must_be_zero
        a  reverse  -  reverses=0 timeout=1s code=-                                     -> reverses_must_not_be_zero
        a  reverse  a  timeout=1s code=-                                                -> reverses_must_be_different
        a  move  custody:w  client:a  1 -  asset=- timeout=1s code=- closing_debit      -> timeout_reserved_for_pending_transfer
        a  move  custody:w  client:a  1 -  asset=- code=- closing_debit                 -> closing_transfer_must_be_pending
        a  move  custody:w  client:a  1 -  asset=- code=-                               -> ledger_must_not_be_zero
        a  move  custody:w  client:a  1 X  code=-                                       -> code_must_not_be_zero
    """,
    "the accounts, time, standing, the columns, the guards": """
        since custody:new X 2026-01-01
        m  move  custody:w  suspense:evm  max X          -> created
        n  move  custody:w  client:a  0 X                -> created
        close-period 2026-01-03
        freeze custody:w X
        freeze client:a X
        a  move  ?client:x  ?client:y  max X  effective=2026-01-02     -> debit_account_not_found
        b  move  custody:w  ?client:y  max X  effective=2026-01-02     -> credit_account_not_found
        c  move  client:a  suspense:evm  max X  effective=2026-01-02   -> effective_period_closed
        d  move  client:a  suspense:evm  max X                         -> debit_account_frozen
        unfreeze client:a X
        h  hold  client:b  suspense:evm  0 X  closing_credit           -> created
        freeze client:a X
        e  move  client:a  suspense:evm  max X                         -> credit_account_already_closed
        f  hold  client:a  suspense:evm  max X  timeout=max            -> credit_account_already_closed
        v  void  h                                                     -> created
        unfreeze client:a X
        unfreeze custody:w X
        g  hold  client:a  suspense:evm  max X  timeout=max            -> overflows_credits
        i  hold  client:a  suspense:btc  1 X  timeout=max              -> overflows_timeout
        cap bank:main X
        j  move  client:a  bank:main  1 X                              -> exceeds_credits
        k  move  suspense:btc  bank:main  1 X                          -> exceeds_debits
    """,
    "history: order, accounts, timeout, period, then standing": """
        since custody:old X 2025-12-01
        since client:old X 2025-12-01
        since custody:new X 2025-12-20
        since client:new X 2025-12-20
        a  move  custody:old  client:old  5 X  imported effective=2025-12-10               -> created
        close-period 2025-12-31
        freeze custody:new X
        b  hold  custody:new  client:new  5 X  imported effective=2025-12-09 timeout=1s    -> imported_event_timestamp_must_not_regress
        b  hold  custody:new  client:new  5 X  imported effective=2025-12-11 timeout=1s    -> imported_event_timestamp_must_postdate_debit_account
        b  hold  custody:old  client:new  5 X  imported effective=2025-12-11 timeout=1s    -> imported_event_timestamp_must_postdate_credit_account
        b  hold  custody:new  client:new  5 X  imported effective=2025-12-21 timeout=1s    -> imported_event_timeout_must_be_zero
        b  hold  custody:new  client:new  5 X  imported effective=2025-12-21               -> effective_period_closed
        c  hold  custody:new  client:new  5 X  imported effective=2026-01-01               -> debit_account_frozen
    """,
    "the hold, from what it is to how it ended": """
        a  move  custody:w  client:a  5 X                                           -> created
        h  hold  custody:w  client:a  5 X                                           -> created
        p  post  nothing  9  debit=client:b credit=client:b2 asset=Y                -> pending_transfer_not_found
        q  post  a  9  debit=client:b credit=client:b2 asset=Y                      -> pending_transfer_not_pending
        q  post  h                                                                  -> created
        r  post  h  9  debit=client:b credit=client:b2 asset=Y                      -> pending_transfer_has_different_debit_account_id
        r  post  h  9  credit=client:b2 asset=Y                                     -> pending_transfer_has_different_credit_account_id
        r  post  h  9  asset=Y                                                      -> pending_transfer_has_different_ledger
        r  post  h  9                                                               -> exceeds_pending_transfer_amount
        r  void  h  4                                                               -> pending_transfer_has_different_amount
        close-period 2026-01-04
        r  void  h  effective=2026-01-02                                            -> pending_transfer_already_posted
    """,
    "the reversed transfer, from what it is to how often": """
        a  move  custody:w  client:a  5 X                                           -> created
        h  hold  custody:w  client:a  5 X                                           -> created
        r  reverse  nothing  9  debit=client:b credit=client:b2 asset=Y             -> reversed_transfer_not_found
        s  reverse  h  9  debit=client:b credit=client:b2 asset=Y                   -> reversed_transfer_not_reversible
        s  reverse  a                                                               -> created
        freeze client:a X
        t  reverse  a  9  debit=client:b credit=client:b2 asset=Y                   -> reversed_transfer_has_different_debit_account_id
        t  reverse  a  9  credit=client:b2 asset=Y                                  -> reversed_transfer_has_different_credit_account_id
        t  reverse  a  9  asset=Y                                                   -> reversed_transfer_has_different_ledger
        t  reverse  a  9                                                            -> reversed_transfer_has_different_amount
        t  reverse  a                                                               -> reversed_transfer_already_reversed
    """,
}
"""Where several apply, the first of the vocabulary is the answer."""


@pytest.mark.parametrize("name", STORIES)
async def test_story(engine: AsyncEngine, name: str) -> None:
    story = dedent(STORIES[name])

    assert await play(engine, story) == story


@pytest.mark.parametrize("name", PRECEDENCE)
async def test_precedence(engine: AsyncEngine, name: str) -> None:
    story = dedent(PRECEDENCE[name])

    assert await play(engine, story) == story


@pytest.mark.parametrize("name", ["the form, from the first fault to the last"])
def test_precedence_is_told_in_the_order_of_the_vocabulary(name: str) -> None:
    """Each line of such a story has one fault less than the one before."""
    told = [line.split()[-1] for line in PRECEDENCE[name].strip().splitlines()]
    order = [str(outcome) for outcome in Outcome]

    assert told == sorted(told, key=order.index)


def test_every_outcome_is_met_by_a_story() -> None:
    told = {word for story in STORIES.values() for word in story.split()}

    assert sorted(outcome.value for outcome in Outcome if outcome.value not in told) == []
