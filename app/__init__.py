"""The top of the house: settings become wiring, wiring becomes processes, commands and the demo.

Nothing imports this package but the pytest plugin; only here are environment variables read and
adapters constructed.
"""
