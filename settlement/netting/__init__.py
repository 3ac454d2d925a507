"""Netting: what is owed becomes less to move, and nobody's position changes.

Pure: values in, values out. Nouns: edges (one obligation of a debtor to a creditor in one asset),
clearings, forms, payments, choices.

`bilateral` nets a party against the desk and says what each obligation is discharged by;
`multilateral` counts what a hub would move; `cycles` clears what goes in circles and makes nobody
owe anybody new; `forms` sets them side by side; `liquidity` chooses what can settle with what
there is, and `verification` proves such a choice in integers. The programs that solve large
graphs lie in `settlement.solvers`; without them `exact` solves, with integers of any size.

It is not the cycle of settlement: it reads no database and posts nothing.
"""
