"""Datasette on the live mirror: read only, on loopback, with the columns of `read/catalog` and the twenty questions."""

from syncd.browse.app import make_app
from syncd.browse.metadata import NAME, metadata

__all__ = ["NAME", "make_app", "metadata"]
