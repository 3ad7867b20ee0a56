"""Alembic migrations of the ranking store; ``trivium.feedback.rankings.schema`` runs them."""
