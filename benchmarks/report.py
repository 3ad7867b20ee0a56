"""What is printed of the measurements, and the same as data."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.job import Job
    from benchmarks.run import Benchmark, Measured

LOSS_TOLERANCE = 1e-4
RAGGED_TOLERANCE = 1.3  # between the mean lengths of rollouts that end by themselves
MEMORY_GOAL = 0.5


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    return {"median": middle, "q1": low, "q3": high, "min": min(values), "max": max(values)}


def spread(values: dict[str, float], form: str = ".2f") -> str:
    return f"{values['median']:{form}} ({values['min']:{form}}..{values['max']:{form}})"


def print_header(rates: Sequence[float], threads: int, parameters: int, versions: dict[str, str]) -> dict[str, float]:
    found = summary([rate / 1e9 for rate in rates])
    print("versions   " + "  ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"model      {parameters / 1e6:.2f}M parameters, float32, {threads} threads")
    print(f"roofline   {spread(found, '.0f')} GFLOP/s in a float32 matrix product of 2048 x 2048 x 2048")
    print("           (median with min..max here and below; 'of roof' is the operations the job needs, by formula,")
    print("           over the time and the rate of a matrix product measured in the same rounds)", flush=True)
    return found


def same_work(benchmark: "Benchmark", measured: "Measured") -> tuple[bool, str]:
    """Whether the contenders did the same work in their first repetition, and a line that says so."""
    first = {name: result for name, result in measured.first.items() if name != "roofline"}
    ours = first["trivium"]
    parts, equal = [], True
    for key, word in (("tokens", "tokens"), ("samples", "rollouts"), ("prompt_tokens", "prompt tokens")):
        if key in ours:
            counts = {result[key] for result in first.values()}
            equal &= len(counts) == 1
            parts.append(f"{'/'.join(f'{count:,}' for count in sorted(counts))} {word}")
    if "loss" in ours:
        pairs = [measured.first, {name: results[-1] for name, results in measured.results.items()}]
        gaps = [max(abs(at[name]["loss"] - at["trivium"]["loss"]) for name in first) for at in pairs]
        equal &= max(gaps) <= LOSS_TOLERANCE
        parts.append(f"first loss {ours['loss']:.6f}, largest difference {gaps[0]:.1e} (last step {gaps[1]:.1e})")
        if max(gaps) > LOSS_TOLERANCE:
            parts.append("losses: " + ", ".join(f"{name} {result['loss']:.6f}" for name, result in first.items()))
    if "completion_tokens" in ours:
        made = {
            name: round(statistics.fmean(r["completion_tokens"] for r in rs)) for name, rs in measured.results.items()
        }
        parts.append("completion tokens a step " + ", ".join(f"{name} {count:,}" for name, count in made.items()))
        # rollouts that end by themselves do so at random, and few rounds leave their mean uncertain by a tenth
        equal &= max(made.values()) <= RAGGED_TOLERANCE * min(made.values())
    if "outputs" in ours:
        for name, result in first.items():
            if name != "trivium":
                agree = sum(a == b for a, b in zip(result["outputs"], ours["outputs"], strict=True))
                equal &= agree >= 0.9 * len(ours["outputs"])  # a tie in the logits may fall either way
                parts.append(f"{name} {agree}/{len(ours['outputs'])} answers the same")
    return equal, ("same work  " if equal else "WORK DIFFERS  ") + "; ".join(parts)


def print_benchmark(benchmark: "Benchmark", measured: "Measured", job: "Job") -> dict[str, Any]:
    roof = statistics.median(measured.roofline)
    print(f"\n{benchmark.title}")
    unit = benchmark.unit
    head = f"{'seconds':>22} {'cpu s':>7} {unit + '/s':>10} {'of roof':>8} {'peak MiB':>9}"
    print(f"  {'':<20} {head}   trivium is so many times as fast")
    rows: dict[str, Any] = {}
    for name, results in measured.results.items():
        seconds = summary([result["seconds"] for result in results])
        rates = [result[unit] / result["seconds"] for result in results]
        share = statistics.median(benchmark.flops(job, result) / result["seconds"] for result in results) / roof
        ours = [result[unit] / result["seconds"] for result in measured.results["trivium"]]
        ratio = summary([a / b for a, b in zip(ours, rates, strict=True)])
        cpu, peak = statistics.median(result["cpu_seconds"] for result in results), results[-1]["peak"]
        rows[name] = {
            "seconds": seconds,
            "cpu_seconds": cpu,
            "rate": summary(rates),
            "roofline_share": share,
            "peak_mib": peak,
            **({} if name == "trivium" else {"trivium_ratio": ratio}),
        }
        print(
            f"  {name:<20} {spread(seconds, '.3f'):>22} {cpu:>7.3f} {statistics.median(rates):>10,.0f} {share:>8.1%} "
            f"{peak:>9,.0f}   {'' if name == 'trivium' else spread(ratio)}"
        )
    equal, line = same_work(benchmark, measured)
    print(f"  {line}")
    best = min(benchmark.rivals, key=lambda name: rows[name]["trivium_ratio"]["median"])
    speed = rows[best]["trivium_ratio"]["median"]
    targets = {"speed": {"goal": benchmark.goal, "reached": round(speed, 3), "met": speed >= benchmark.goal}}
    said = f"{speed:.2f}x {best} (goal {benchmark.goal:g}x)"
    if best.startswith("trl"):
        least = min(rows[name]["peak_mib"] for name in benchmark.rivals)
        memory = rows["trivium"]["peak_mib"] / least
        targets["memory"] = {"goal": MEMORY_GOAL, "reached": round(memory, 3), "met": memory <= MEMORY_GOAL}
        said += f"; peak memory {memory:.2f} of TRL's (goal {MEMORY_GOAL:g})"
    verdict = "targets met" if all(target["met"] for target in targets.values()) else "TARGET MISSED"
    print(f"  {verdict}: {said}", flush=True)
    return {"contenders": rows, "equal_work": equal, "targets": targets, "roofline_gflops": roof / 1e9}
