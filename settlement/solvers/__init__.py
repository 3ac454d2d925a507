"""Programs of others that solve what is too large for our own: OR-tools and HiGHS, an extra.

They state numbers and decide nothing: `settlement.netting` verifies whatever they find in integers.
`loading` gives those that are installed; nothing else imports the modules beside it.
"""
