"""The numbers of PostgreSQL's advisory locks, in one place so that no two purposes share one.

Each lock has two halves. The first is a number of this file. The second is a hash that contains the name of the schema,
so that two mirrors in one database do not wait for each other.
"""

LEADER = 0x53594C44
"""Held by the replica that takes the passes."""
PRESENCE = 0x53595052
"""Shared by all running replicas; `syncd migrate-store` needs it alone."""
MIGRATION = 0x53594D49
"""Held while the schema is migrated."""
OPERATION_KEY = 0x53594E44
"""Held by a claim on the key (source id or session id) of each operation that it claims."""
