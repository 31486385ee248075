"""The revisions of the schema, and where their migrations are. Imports nothing heavy: most commands only compare."""

from pathlib import Path


def scripts() -> Path:
    """Return the directory of the migrations: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


REVISIONS = tuple(sorted(path.name.partition("_")[0] for path in (scripts() / "versions").glob("[0-9]*_*.py")))
"""Every revision, oldest first. The name of a migration's file begins with its revision."""

HEAD = REVISIONS[-1]

SELECT_REVISION = "SELECT version_num FROM alembic_version"
