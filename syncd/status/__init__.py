"""The status server: liveness, readiness, metrics, and one page for people. `daemon.status_port` starts it.

::

    watchdog ◄── the daemon's loops         metrics ◄── every request to Albert
      │                                        │
      └──► server: /livez  /readyz  /metrics  /status.json  / ◄── snapshot ◄── mirror.read.stats (cached)
                            (the schema's version alone)

No request changes anything.
"""
