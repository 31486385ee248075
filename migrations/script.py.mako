"""${message}."""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision).replace("'", '"')}
down_revision = ${repr(down_revision).replace("'", '"')}
branch_labels = None
depends_on = None

# A migration imports nothing from the package: it must do the same in every later release.


def upgrade() -> None:
    """Say in a line what changes for a database with rows."""
    ${upgrades if upgrades else "pass"}
