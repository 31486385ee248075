"""A stand-in Albert server on loopback, with habits and faults to choose from.

    HTTP ──► server (records, scripts, faults) ──► api ──► store ──► effects
                                                            │
                             listing, look-up ◄── lag ◄─────┘

The habits are the variants of all behaviour that is not known of the real server, so that syncd can be tested with
each. Nothing here imports the rest of syncd, except for `syncd.urls`: a server that shares code with its client shares
its errors.
"""

from syncd.sandbox.faults import Action, FaultName, Faults
from syncd.sandbox.habits import Habits
from syncd.sandbox.sandbox import Request, Sandbox
from syncd.sandbox.server import serve
from syncd.sandbox.store import Effect

__all__ = ["Action", "Effect", "FaultName", "Faults", "Habits", "Request", "Sandbox", "serve"]
