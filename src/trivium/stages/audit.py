"""An audit: a judge is asked about answers whose order people, a panel or gold scores know, before its word is used."""

import time

from trivium import files
from trivium.config import AuditConfig
from trivium.feedback.judges.audit import audit, clause
from trivium.feedback.judges.build import build_judge
from trivium.feedback.judges.pairs import audited_pairs
from trivium.feedback.rankings.sources import read_rankings
from trivium.preflight import check_audit
from trivium.stages.context import StageContext
from trivium.training import distributed
from trivium.training.device import choose_device


def main(context: StageContext) -> dict[str, object]:
    """Run the stage; calls that were finished are in the judge's cache. Returns its summary (see ``trivium.run``)."""
    config: AuditConfig = context.config
    check_audit(config, context.name)
    device, seed = choose_device(context.recipe), context.recipe.seed
    began = time.perf_counter()
    numbers: dict[str, object] = {}
    if distributed.is_main():
        placed = [source.model_copy(update={"source": context.place(source.source)}) for source in config.rankings]
        rankings = read_rankings(placed)
        cache = context.directory.parent / "judge.db"
        with build_judge(config.judge, place=context.place, cache=cache, seed=seed, device=device) as judge:
            items, unscored = audited_pairs(rankings, config.pairs, seed, judge.name, config.gold)
            context.progress.stage(context.name, len(items) * len(config.ask))
            report, _ = audit(judge, items, config.judge, config.ask, seed, context.progress.advance)
        files.write_json(context.directory / "audit.json", {**report, "unscored": unscored})
        measured = report["asked"].get("compare") or report["asked"]["score"]
        numbers = {
            "told": clause(report),
            "metric": {"name": "kappa", "value": (measured["kappa"] or {}).get("estimate"), "better": "higher"},
            "pairs": measured["n"],
            "missing": measured["missing"],
            "chance": report["chance"],
            "usage": report["usage"],
        }
    distributed.barrier()
    return {"seconds": round(time.perf_counter() - began, 2), **numbers}
