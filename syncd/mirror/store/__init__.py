"""Writing the mirror: one file for each table or group of tables."""
