"""Time Trivium against TRL, transformers and litgpt on identical work: ``python benchmarks/run.py --help``.

One child process a contender keeps its model alive; a round gives each of them one repetition in turn (A B C A B C …),
so whatever slows the machine slows them alike, and ratios are taken round by round. See docs/benchmarks.md.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]

from benchmarks import report  # noqa: E402
from benchmarks.job import Job, decode_flops, dpo_flops, grpo_flops, lora_flops, sft_flops  # noqa: E402

PEERS = ("trl", "transformers", "litgpt")


@dataclass(frozen=True)
class Benchmark:
    """``contenders``: name and worker of each, Trivium first. ``unit``: what a rate counts, a key of the results.
    ``rivals``: those whose best the target is measured against; ``goal``: how many times their rate."""

    title: str
    contenders: dict[str, str]
    unit: str
    rivals: tuple[str, ...]
    goal: float
    flops: Callable[[Job, dict[str, Any]], float]


BENCHMARKS = {
    "sft": Benchmark(
        "SFT step: 64 ragged conversations, AdamW, loss on the assistant's tokens",
        {
            "trivium": "with_trivium:sft",
            "trl": "with_trl:sft",
            "trl-packed": "with_trl:sft_packed",
            "transformers": "with_transformers:sft",
            "litgpt": "with_litgpt:sft",
        },
        "tokens",
        ("trl", "trl-packed"),
        1.5,
        lambda job, result: sft_flops(job),
    ),
    "lora": Benchmark(
        "SFT step of rank-8 adapters in all seven matrices of every block: the same 64 conversations",
        {"trivium": "with_trivium:lora", "trl": "with_trl:lora"},
        "tokens",
        ("trl",),
        1.5,
        lambda job, result: lora_flops(job),
    ),
    "dpo": Benchmark(
        "DPO step: 32 ragged pairs, AdamW, reference log-probabilities computed beforehand",
        {"trivium": "with_trivium:dpo", "trl": "with_trl:dpo", "trl-padding-free": "with_trl:dpo_padding_free"},
        "tokens",
        ("trl", "trl-padding-free"),
        1.5,
        lambda job, result: dpo_flops(job),
    ),
    "grpo": Benchmark(
        "GRPO step: 16 prompts x 8 rollouts of 40 tokens, no KL, one update",
        {"trivium": "with_trivium:grpo", "trl": "with_trl:grpo"},
        "samples",
        ("trl",),
        2.0,
        lambda job, result: grpo_flops(job, result["completion_tokens"]),
    ),
    "grpo-ragged": Benchmark(
        "GRPO step, ragged: rollouts end by themselves after about 20 tokens, at most 64",
        {"trivium": "with_trivium:grpo_ragged", "trl": "with_trl:grpo_ragged"},
        "samples",
        ("trl",),
        2.0,
        lambda job, result: grpo_flops(job, result["completion_tokens"]),
    ),
    "decode": Benchmark(
        "Decoding: 64 ragged requests, greedy; only the tokens asked for count",
        {
            "trivium": "with_trivium:decode",
            "transformers": "with_transformers:decode",
            "transformers-sorted": "with_transformers:decode_sorted",
            "litgpt": "with_litgpt:decode",
        },
        "tokens",
        ("transformers", "transformers-sorted"),
        2.0,
        lambda job, result: decode_flops(job),
    ),
}


class Worker:
    """The parent's end of one contender (see ``benchmarks.worker``)."""

    def __init__(self, name: str, contender: str, directory: Path, threads: int) -> None:
        self.name, self.log = name, directory / f"{contender.replace(':', '-')}.log"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "benchmarks.worker", str(directory), contender, str(threads)]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        self._answer()

    def repeat(self) -> dict[str, Any]:
        self._say("go")
        return self._answer()

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # it may be gone already
            self._say("stop")
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # in the middle of a repetition, after Ctrl-C
            self.process.kill()

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            last = [text for text in self.log.read_text().splitlines() if text.strip()][-1:] or ["no message"]
            raise SystemExit(f"error: the contender {self.name} stopped: {last[0]} (all of it: {self.log})")
        return json.loads(line)  # type: ignore[no-any-return]


@dataclass
class Measured:
    """Results of a benchmark: per contender one result a round; the roofline's rate a round, in operations a second."""

    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    first: dict[str, dict[str, Any]] = field(default_factory=dict)
    roofline: list[float] = field(default_factory=list)


@contextlib.contextmanager
def workers(contenders: dict[str, str], directory: Path, threads: int) -> Iterator[dict[str, Worker]]:
    started: dict[str, Worker] = {}
    try:
        for name, contender in contenders.items():
            started[name] = Worker(name, contender, directory, threads)
        yield started
    finally:
        for worker in started.values():
            worker.stop()


def measure(benchmark: Benchmark, directory: Path, threads: int, warm_up: int, rounds: int) -> Measured:
    """Warm-up rounds, of which the first results are kept to compare the work, then the rounds that count."""
    measured = Measured(results={name: [] for name in benchmark.contenders})
    with workers({**benchmark.contenders, "roofline": "roofline:product"}, directory, threads) as running:
        for turn in range(warm_up + rounds):
            for name, worker in running.items():
                result = worker.repeat()
                if turn == 0:
                    measured.first[name] = result
                if turn < warm_up:
                    continue
                if name == "roofline":
                    measured.roofline.append(result["flops"] / result["seconds"])
                else:
                    measured.results[name].append(result)
    return measured


def build_job(directory: Path) -> Job:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.job", str(directory)], env=environment, capture_output=True, text=True
    )
    if made.returncode:
        raise SystemExit(f"error: the job could not be made: {made.stderr.strip().splitlines()[-1]}")
    return Job.load(directory)


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("trivium", "torch", *PEERS)}


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split(":")[0], epilog="example: python benchmarks/run.py --quick --only sft,decode"
    )
    parser.add_argument("--quick", action="store_true", help="3 rounds after 1 of warm-up instead of 11 after 2")
    known = list(dict.fromkeys(name.partition("-")[0] for name in BENCHMARKS))
    parser.add_argument("--only", default="", help=f"comma-separated: {', '.join(known)} (grpo: both variants)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of every contender")
    chosen = parser.parse_args(given)
    wanted = [name for name in chosen.only.split(",") if name] or known
    if unknown := set(wanted) - set(known):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    chosen.benchmarks = [name for name in BENCHMARKS if name.partition("-")[0] in wanted]
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    chosen = arguments(given)
    missing = [name for name in ("torch", "trivium", *PEERS) if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"error: the benchmarks compare with other libraries and {', '.join(missing)} cannot be imported here; "
            "install them beside Trivium with: pip install 'trivium[peers]' (in a clone: make benchmark)"
        )
    warm_up, rounds = (1, 3) if chosen.quick else (2, 11)
    results: dict[str, Any] = {"threads": chosen.threads, "rounds": rounds, "versions": versions(), "benchmarks": {}}
    equal = True
    with tempfile.TemporaryDirectory(prefix="trivium-benchmark-") as folder:
        directory = Path(folder)
        job = build_job(directory)
        with workers({"roofline": "roofline:product"}, directory, chosen.threads) as running:
            rates = [answer["flops"] / answer["seconds"] for answer in (running["roofline"].repeat() for _ in range(6))]
        results["roofline_gflops"] = report.print_header(rates[1:], chosen.threads, job.parameters, results["versions"])
        for name in chosen.benchmarks:
            measured = measure(BENCHMARKS[name], directory, chosen.threads, warm_up, rounds)
            results["benchmarks"][name] = report.print_benchmark(BENCHMARKS[name], measured, job)
            equal &= results["benchmarks"][name]["equal_work"]
    print(json.dumps(results), flush=True)
    if not equal:
        raise SystemExit("error: the contenders did not do the same work; the ratios above mean nothing")


if __name__ == "__main__":
    main()
