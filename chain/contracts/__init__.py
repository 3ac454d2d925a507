"""Compiled test contracts and the one way to read them: ``artefact.load_artefact``.

The contracts are for simulators and tests. Nothing here deploys or calls them.
"""
