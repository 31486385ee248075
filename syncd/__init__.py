"""syncd: a local SQL mirror of Albert chat sessions, and a queue of operations that reach Albert once in effect."""
