"""Faults on purpose: where a worker or a server may die, and what makes them die there.

`edges` derives every crash point from the state tables; `postgres_wire` is a way to PostgreSQL that can
be watched, held and cut at any message; `killing` strikes at a point. Used by the crash matrix and by
the guided demo. Nothing here runs in a house that works.

What breaks the world around a process: `proxy` (a wire before any server, under `wire_rules`), `clocks` that
jump and `disks` that fail (with `preloads`, the libraries of both); docs/faults.md.
"""
