"""Processes of the house, one file each: what a process does in one turn, without its loop.

A turn takes everything that is due as far as it goes now and returns what it did. The demo and the
tests call turns one at a time; `causeway up` calls them in a loop.
"""
