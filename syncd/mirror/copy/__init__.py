"""Whole copies of a mirror: backups, and moves between SQLite and PostgreSQL."""
