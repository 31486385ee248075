"""The status server: is the daemon alive, is it ready, what does it measure, and one page for a tired person.

::

    pulse ◄── the daemon's loops            metrics ◄── every request to Albert
      │                                        │
      └──► server: /livez  /readyz  /metrics  / ◄── readings ◄── mirror.measures (one snapshot, cached)
                             (the schema's version alone)

It reads; nothing that it is asked changes anything.
"""
