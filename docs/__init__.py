"""The documentation, and the scripts that write its generated pages: `make docs` runs them."""
