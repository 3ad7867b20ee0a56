"""Lessons: what people said of pairs of answers, as conversations from which a model learns to judge as they do."""

import json
import time
from collections import Counter

from trivium import files
from trivium.config import LessonsConfig
from trivium.feedback.judges import constitution
from trivium.feedback.judges.lessons import lessons_of
from trivium.feedback.rankings.sources import read_rankings
from trivium.stages.context import StageContext
from trivium.training import distributed


def main(context: StageContext) -> dict[str, object]:
    """Run the stage: rankings in, STAGE/conversations.jsonl out. Returns its summary (see ``trivium.run``)."""
    config: LessonsConfig = context.config
    began = time.perf_counter()
    placed = [source.model_copy(update={"source": context.place(source.source)}) for source in config.rankings]
    rankings = read_rankings(placed)
    lessons = list(lessons_of(rankings, constitution.load(config.constitution)))
    if distributed.is_main():
        lines = (json.dumps(lesson.row, ensure_ascii=False) + "\n" for lesson in lessons)
        files.write_text(context.directory / "conversations.jsonl", "".join(lines))
    distributed.barrier()
    return {
        "told": f"{len(lessons):,} lessons from {len(rankings):,} rankings",
        "seconds": round(time.perf_counter() - began, 2),
        "conversations": len(lessons),
        "by_principle": dict(sorted(Counter(lesson.principle for lesson in lessons).items())),
    }
