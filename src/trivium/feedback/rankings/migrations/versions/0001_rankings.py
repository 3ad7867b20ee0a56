"""Prompts, responses, tasks, gold tasks, annotators, assignments, rankings, flags; and what makes them append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Nothing stored of these is ever changed or removed: a ranking, and what it speaks of.
APPEND_ONLY = ("rankings", "prompts", "responses", "task_responses")


def upgrade() -> None:
    _contents()
    _work()
    _rankings()
    if op.get_bind().dialect.name == "sqlite":
        _triggers_of_sqlite()
    else:
        _triggers_of_postgresql()


def _contents() -> None:
    op.create_table(
        "prompts",
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("messages", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
    )
    op.create_table(
        "responses",
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("checkpoint", sa.Text, nullable=False),
        sa.Column("sampling", sa.Text, nullable=False),
        sa.Column("finish_reason", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("prompt", sa.Text, sa.ForeignKey("prompts.hash"), nullable=False),
        sa.Column("criterion", sa.Text, nullable=False),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("priority", sa.Float, nullable=False),
        sa.Column("slice", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("closed", sa.Boolean, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
    )
    op.create_index("tasks_by_priority", "tasks", ["status", "slice", "priority", "number"])
    op.create_index("tasks_by_hash", "tasks", ["status", "slice", "id"])
    op.create_table(
        "task_responses",
        sa.Column("task", sa.Text, sa.ForeignKey("tasks.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("response", sa.Text, sa.ForeignKey("responses.hash"), nullable=False),
    )
    op.create_table(
        "gold_tasks",
        sa.Column("task", sa.Text, sa.ForeignKey("tasks.id"), primary_key=True),
        sa.Column("tiers", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
    )


def _work() -> None:
    op.create_table(
        "annotators",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("token_hash", sa.Text, unique=True),
        sa.Column("created", sa.Text, nullable=False),
    )
    op.create_table(
        "assignments",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("task", sa.Text, sa.ForeignKey("tasks.id"), nullable=False),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotators.number"), nullable=False),
        sa.Column("displayed", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
        sa.Column("submitted", sa.Float),
        sa.UniqueConstraint("task", "annotator", name="assignments_once"),
    )
    op.create_index("assignments_by_annotator", "assignments", ["annotator", "submitted"])


def _rankings() -> None:
    op.create_table(
        "rankings",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("task", sa.Text, sa.ForeignKey("tasks.id"), nullable=False),
        sa.Column("task_name", sa.Text, nullable=False),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotators.number"), nullable=False),
        sa.Column("assignment", sa.Text, sa.ForeignKey("assignments.id")),
        sa.Column("key", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("tiers", sa.Text, nullable=False),
        sa.Column("displayed", sa.Text, nullable=False),
        sa.Column("all_bad", sa.Boolean, nullable=False),
        sa.Column("skipped", sa.Text),
        sa.Column("flags", sa.Text, nullable=False),
        sa.Column("strength", sa.Float),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("edited", sa.Text),
        sa.Column("edited_from", sa.Integer),
        sa.Column("supersedes", sa.Text),
        sa.Column("time", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.UniqueConstraint("annotator", "key", name="rankings_key"),
    )
    op.create_index("rankings_by_task", "rankings", ["task", "annotator"])
    op.create_index("rankings_by_supersedes", "rankings", ["supersedes"])
    op.create_index("rankings_by_assignment", "rankings", ["assignment"])
    op.create_table(
        "flags",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("ranking", sa.Text, sa.ForeignKey("rankings.id"), nullable=False),
        sa.Column("task", sa.Text, sa.ForeignKey("tasks.id"), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("resolved", sa.Boolean, nullable=False),
    )
    op.create_index("flags_by_task", "flags", ["task", "resolved"])
    op.create_index("flags_by_ranking", "flags", ["ranking"])


def _triggers_of_sqlite() -> None:
    for table in APPEND_ONLY:
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
    # INSERT OR REPLACE removes the old row without a word to the trigger above (unless recursive_triggers is on).
    op.execute(
        "CREATE TRIGGER rankings_no_replace BEFORE INSERT ON rankings WHEN EXISTS (SELECT 1 FROM rankings "
        "WHERE id = NEW.id OR (annotator = NEW.annotator AND key = NEW.key)) "
        "BEGIN SELECT RAISE(ABORT, 'rankings is append-only'); END"
    )


def _triggers_of_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION trivium_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION trivium_append_only()"
        )
