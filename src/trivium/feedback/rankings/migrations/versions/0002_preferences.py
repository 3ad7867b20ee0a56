"""Probabilities of pairs, beside the tiers of a ranking."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # a column at the end needs no rebuilt table, so the triggers that keep rankings as they are stay where they are
    op.add_column("rankings", sa.Column("preferences", sa.Text))
