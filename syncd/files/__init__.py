"""Files that people exchange with syncd: imports, exports, and temporary names for both."""
