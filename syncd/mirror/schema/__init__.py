"""The schema: tables, column types, states, revisions and privileges."""
