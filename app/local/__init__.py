"""Everything that runs on this machine only: an embedded PostgreSQL, child processes, migrations.

For the demo, the simulators and the tests. It is not a service manager for production: there the
database is a URL and the processes belong to systemd or Kubernetes.

Verbs: ``LocalPostgres.start / restart_if_dead / stop / detach``, ``Processes.start / stop``,
``migrate``.

Must preserve: a data directory is never deleted; a process is only ever signalled after its start
time has been compared with the one that was written down; nothing that a killed owner left behind
goes unreported.
"""
