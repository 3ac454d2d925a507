"""A proxy before any EVM node that fails in the ways in which providers fail.

It speaks JSON-RPC over HTTP and WebSocket on one port and passes everything on to the node behind
it, unless a rule says otherwise. Rules are scripted: by method, from the n-th matching call on, so
many times, every so many; nothing is random, so the same calls meet the same faults. They are set
at the start, through ``/faults`` while it runs, or through the object.

What it is not: a node, or a load generator. It keeps no chain; what it tells wrongly it derives from
the true answer.

Verbs: ``proxy.FaultProxy`` (start, stop, ``rules``); ``python -m chain.simulators.faults`` runs it as
a process.

Rooms, from pure to outside: ``model`` (rules and their JSON), ``book`` (which rules meet a call),
``lies`` (how an answer is changed), ``proxy``.
"""
