"""The tables of the store. The migrations make them; a test holds that both say the same.

Free text is kept as JSON: PostgreSQL's text cannot hold a NUL, nor UTF-8 a lone surrogate, and models write both.
Prompts, responses and tasks are named by a hash of their content, so that the same content is stored once.
"""

import json
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class JsonText(TypeDecorator[Any]):
    """A JSON value in a text column; None is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else encode(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


def encode(value: Any) -> str:
    """JSON that stays readable where UTF-8 can hold it."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value)
    return text


metadata = MetaData()

annotators = Table(
    "annotators",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("token_hash", Text, unique=True),  # SHA-256 of the access token, which is stored nowhere
    Column("created", Text, nullable=False),
)

prompts = Table(
    "prompts",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("id", JsonText, nullable=False),
    Column("messages", JsonText, nullable=False),
    Column("answer", JsonText),
    Column("task", JsonText, nullable=False),
    Column("metadata", JsonText, nullable=False),
)

responses = Table(
    "responses",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("text", JsonText, nullable=False),
    Column("model", JsonText, nullable=False),
    Column("checkpoint", JsonText, nullable=False),
    Column("sampling", JsonText, nullable=False),
    Column("finish_reason", JsonText, nullable=False),
    Column("metadata", JsonText, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("number", Integer, primary_key=True),  # the order of adding
    Column("id", Text, nullable=False, unique=True),
    Column("prompt", Text, ForeignKey("prompts.hash"), nullable=False),
    Column("criterion", Text, nullable=False),
    Column("wanted", Integer, nullable=False),
    Column("priority", Float, nullable=False),
    Column("slice", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("closed", Boolean, nullable=False),
    # `done` and `status` follow from rankings and flags; they stand here so that assigning need not count.
    Column("done", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("created", Text, nullable=False),
    Index("tasks_by_priority", "status", "slice", "priority", "number"),
    Index("tasks_by_hash", "status", "slice", "id"),
)

task_responses = Table(
    "task_responses",
    metadata,
    Column("task", Text, ForeignKey("tasks.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("response", Text, ForeignKey("responses.hash"), nullable=False),
)

gold_tasks = Table(
    "gold_tasks",
    metadata,
    Column("task", Text, ForeignKey("tasks.id"), primary_key=True),
    Column("tiers", JsonText, nullable=False),
    Column("note", JsonText, nullable=False),
    Column("created", Text, nullable=False),
)

assignments = Table(
    "assignments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("task", Text, ForeignKey("tasks.id"), nullable=False),
    Column("annotator", Integer, ForeignKey("annotators.number"), nullable=False),
    Column("displayed", JsonText, nullable=False),
    Column("created", Float, nullable=False),  # seconds since 1970, as is `expires`
    Column("expires", Float, nullable=False),
    Column("submitted", Float),
    UniqueConstraint("task", "annotator", name="assignments_once"),
    Index("assignments_by_annotator", "annotator", "submitted"),
)

rankings = Table(
    "rankings",
    metadata,
    Column("number", Integer, primary_key=True),  # the order of storing
    Column("id", Text, nullable=False, unique=True),
    Column("task", Text, ForeignKey("tasks.id"), nullable=False),
    Column("task_name", Text, nullable=False),  # `Ranking.task` as it was given
    Column("annotator", Integer, ForeignKey("annotators.number"), nullable=False),
    Column("assignment", Text, ForeignKey("assignments.id")),
    Column("key", Text),  # of the submit: the same key stores one ranking
    Column("kind", Text, nullable=False),
    Column("tiers", JsonText, nullable=False),
    Column("displayed", JsonText, nullable=False),
    Column("all_bad", Boolean, nullable=False),
    Column("skipped", JsonText),
    Column("flags", JsonText, nullable=False),
    Column("strength", Float),
    Column("note", JsonText, nullable=False),
    Column("edited", JsonText),
    Column("edited_from", Integer),
    Column("supersedes", Text),
    Column("time", Text, nullable=False),
    Column("seconds", Float),
    Column("metadata", JsonText, nullable=False),
    Column("preferences", JsonText),  # [[i, j, probability], …]; NULL where there are none
    UniqueConstraint("annotator", "key", name="rankings_key"),
    Index("rankings_by_task", "task", "annotator"),
    Index("rankings_by_supersedes", "supersedes"),
    Index("rankings_by_assignment", "assignment"),
)

flags = Table(
    "flags",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("ranking", Text, ForeignKey("rankings.id"), nullable=False),
    Column("task", Text, ForeignKey("tasks.id"), nullable=False),
    Column("reason", JsonText, nullable=False),
    Column("resolved", Boolean, nullable=False),
    Index("flags_by_task", "task", "resolved"),
    Index("flags_by_ranking", "ranking"),
)
