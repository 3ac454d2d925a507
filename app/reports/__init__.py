"""Reports that need several rooms: settlement and reporting are siblings, so they are joined here.

Nothing is decided here: facts are read through the rooms' own queries and handed as plain values to
the pure decisions of `reporting`.
"""
