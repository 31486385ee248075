"""Tests of the stand-in server; a package, so that its conftest is not taken for another directory's."""
