"""Fixtures that give another project's tests a chain, a venue and a ledger of their own."""
