"""Recordings: everything that happened to a feed, as bytes, and what is derived from it.

Nouns: a *segment*, a file of raw items in checksummed blocks, the truth; a *session*, the segments
that one process wrote of one venue; a *loss*, a stretch of time of which frames are missing, and
why; Parquet files by venue, channel, symbol and hour, derived from the truth and reproducible from
it byte for byte; the *manifest*, which says what files there are and what is in them.

Verbs: write, recover, read, derive, replay, record in the manifest, query, export, expire.

It is not a place for anything decided about market data: machines do that, and a recording is put
through the same machine that the live feed went through.

Must be preserved: a frame that is not on disk is never said to be; what was lost is said in the file
itself, with its reason and times; no file appears under its final name before it is whole; a
machine's socket never waits for a disk.
"""
