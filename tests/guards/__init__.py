"""Guards of GUARANTEES.md taken out, to see that something fails without them."""
