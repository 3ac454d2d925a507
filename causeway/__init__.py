"""What other projects import from Causeway: the pytest plugin (`causeway.pytest`)."""
