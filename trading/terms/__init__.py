"""What is agreed with a party before the first deal: terms, netting, where and when it is paid.

Nouns: `ClientTerms` (tenor, fee, spreads, last look), `NettingAgreement` (what nets, from when until
when), standing settlement instructions, `Rail`, `Settlement` (what they come to for one deal).
Verbs: `client_terms.set_terms`, `agreements.agree`, `standing.instruct`; `client_terms.terms_of`,
`resolution.resolve_settlement`, `agreements.netting_sets` and `rails.settlement_rails` answer what holds.

It prices no deal and moves no value: quotes, deals and settlement read what is written here.

Must be preserved: every change is entered by one operator and signed by another over exactly the
next version, so that no old signature puts an old version back into force; no version of terms, of
an agreement or of a standing instruction is ever rewritten; a deal keeps the numbers of the versions
that it was made under.
"""
