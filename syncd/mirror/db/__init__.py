"""The database: connections, transactions, group commit, locks, and what differs between SQLite and PostgreSQL."""
