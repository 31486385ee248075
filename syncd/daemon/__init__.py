"""The daemon: its loops, what supervises them, and how it stops."""
