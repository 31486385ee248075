"""Mutants: changes of the code that break one promise each, with the test that fails because of each.

`python -m tests.mutants` applies them one by one to a copy of the project and runs their tests.
"""
