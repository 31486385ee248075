"""The records that Albert sends: their fields, and how a body becomes rows."""
