"""Reading the mirror: the views, the catalog of their columns, queries for analysts, and statistics."""
