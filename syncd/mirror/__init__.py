"""The mirror: the only code that executes SQL.

Functions here take a SQLAlchemy `Connection` inside a transaction that `database.Database` has begun; they are
synchronous, so that a whole transaction is one hop to the writer's thread and cannot be cancelled in its middle.
"""
