"""The ceiling: a large matrix product in float32, on the same threads as the contenders."""

from benchmarks.job import Job
from benchmarks.worker import Turn

SIZE = 2048


def product(job: Job, turn: Turn) -> None:
    import torch

    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    out = torch.empty(SIZE, SIZE)
    turn()
    while True:
        for _ in range(4):
            torch.mm(left, right, out=out)
        turn(flops=4 * 2 * SIZE**3)
