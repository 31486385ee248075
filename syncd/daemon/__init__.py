"""The daemon: its loops, their supervision, and its shutdown."""
