"""Reading the mirror: status for operators, descriptions of views, rows for exports, questions of analysts."""
