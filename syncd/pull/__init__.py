"""The pull flow: one pass lists all sessions and writes them to the mirror."""
