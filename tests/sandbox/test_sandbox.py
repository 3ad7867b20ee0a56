"""What every tier promises: exact values, honest outcomes, order, and jobs that survive the death of a worker."""

import math
import os
import signal
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivium.config.base import SandboxConfig
from trivium.errors import UserError
from trivium.sandbox import Job, available, bubblewrap, build, plain
from trivium.sandbox import build as build_function
from trivium.sandbox.inside import seccomp
from trivium.sandbox.inside.values import ValueProblem, decode, dumps, encode, loads
from trivium.sandbox.monty import Monty
from trivium.sandbox.pool import Pool

needs_bubblewrap = pytest.mark.skipif(available("bubblewrap") is not None, reason="bubblewrap does not work here")
needs_monty = pytest.mark.skipif(available("monty") is not None, reason="pydantic-monty is not installed")
HEADERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")

texts = st.text(st.characters(), max_size=9)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=9)
hashable = st.recursive(scalars, lambda part: st.tuples(part, part) | st.frozensets(part), max_leaves=8)
values = st.recursive(
    scalars | hashable | st.complex_numbers(),
    lambda part: st.lists(part) | st.tuples(part) | st.dictionaries(hashable, part) | st.sets(hashable),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(values)
def test_values_come_back_with_their_types(value: object) -> None:
    again = decode(loads(dumps(encode(value))))
    assert shape(again) == shape(value)


def shape(value: object) -> tuple[str, ...]:
    """Types and texts, with the parts of sets in an order of their own."""
    if isinstance(value, dict):
        return ("dict", *(part for pair in value.items() for part in map(repr, map(shape, pair))))
    if isinstance(value, list | tuple | set | frozenset):
        parts = [repr(shape(part)) for part in value]
        return (type(value).__name__, *(sorted(parts) if isinstance(value, set | frozenset) else parts))
    return (type(value).__name__, repr(value))


@pytest.mark.parametrize("value", [True, 1, 1.0, (1,), [1], {1}, frozenset({1}), {1: 1}, "1", b"1", 1j, None, -0.0])
def test_look_alikes_stay_apart(value: object) -> None:
    again = decode(loads(dumps(encode(value))))
    assert type(again) is type(value) and again == value and repr(again) == repr(value)


def test_special_numbers() -> None:
    for value in (math.inf, -math.inf, 2**60, -(2**70), 10**5000, "\ud800"):
        assert decode(loads(dumps(encode(value)))) == value
    assert math.isnan(decode(loads(dumps(encode(math.nan)))))


@pytest.mark.parametrize(
    "text",
    [
        b"NaN", b"[]", b'["list"]', b'["list",{}]', b'{"a":1}', b'["object","x"]', b'["bytes","xyz"]', b'["int","1_0"]',
        b'["set",[["list",[]]]]', b'["dict",[[1]]]', b'["float","1"]', b'["complex",1,2]', b"123456789012345678901",
        b"[" * 5000, b"\xff", b'["tuple",[1],[2]]', b'["int","' + b"f" * 200_000 + b'"]',
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused(text: bytes) -> None:
    with pytest.raises(ValueProblem):
        decode(loads(text))


def test_colliding_keys_are_refused() -> None:
    """2,000 ints of one hash would take the host quadratic time."""
    with pytest.raises(ValueProblem, match="one hash"):
        decode(encode({i * (2**61 - 1) for i in range(1, 2000)}))


@pytest.mark.skipif(not HEADERS.exists(), reason="the kernel's headers are not installed")
def test_numbers_are_those_of_the_kernel() -> None:
    rows = [line.split()[1:] for line in HEADERS.read_text().splitlines() if line.startswith("#define __NR_")]
    known = {name.removeprefix("__NR_"): int(number) for name, number in rows}
    for row in " ".join(seccomp.ALLOWED.split()).split(";"):
        name, number, _ = row.split()
        if number != "-" and name in known:
            assert known[name] == int(number), name


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_filters_are_well_formed(architecture: str) -> None:
    for code in (seccomp.wide(architecture), seccomp.narrow(architecture, 7)):
        assert len(code) < 4096 and code[-1].code == seccomp.RETURN
        for place, instruction in enumerate(code):
            assert len(struct.pack("HBBI", *instruction)) == 8
            if instruction.code not in (seccomp.LOAD, seccomp.RETURN):
                assert place + 1 + max(instruction.yes, instruction.no) < len(code)


def decide(code: list[seccomp.Instruction], architecture: int, number: int, *arguments: int) -> int:
    """What the kernel would answer: the few instructions that the filters use, one by one."""
    data = struct.pack("IIQ6Q", number, architecture, 0, *(arguments + (0,) * 6)[:6])
    place = held = 0
    while True:
        instruction = code[place]
        if instruction.code == seccomp.RETURN:
            return instruction.value
        if instruction.code == seccomp.LOAD:
            held = struct.unpack_from("I", data, instruction.value)[0]
            place += 1
            continue
        jumps = {
            seccomp.JUMP_EQUAL: held == instruction.value,
            seccomp.JUMP_AT_LEAST: held >= instruction.value,
            seccomp.JUMP_ABOVE: held > instruction.value,
            seccomp.JUMP_ANY_BIT: bool(held & instruction.value),
        }
        place += 1 + (instruction.yes if jumps[instruction.code] else instruction.no)


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_both_filters_together_allow_the_list_and_nothing_else(architecture: str) -> None:
    """Of every number up to 2,000, with arguments that are right for the calls that look at theirs, and with others."""
    wide, narrow, audit = seccomp.wide(architecture), seccomp.narrow(architecture, 7), seccomp.AUDIT[architecture]
    special = seccomp.SPECIAL[architecture]
    thread, fork, space = 0x3D0F00, 17, 0x10000000 | 0x3D0F00  # clone's flags: of a thread, of fork, with a namespace

    def job(number: int, *arguments: int) -> bool:
        answers = {decide(code, audit, number, *arguments) for code in (wide, narrow)}
        return answers == {seccomp.ALLOW}

    assert {number for number in range(2000) if job(number, 12345, 12345)} == set(
        seccomp.allowed_numbers(architecture)
    ) | {special[seccomp.SENDTO], special[seccomp.RECVFROM]}
    assert job(special[seccomp.CLONE], thread)
    assert not job(special[seccomp.CLONE], fork) and not job(special[seccomp.CLONE], space)
    for call in (seccomp.KILL, seccomp.TGKILL, seccomp.PRLIMIT):
        assert job(special[call], 7) and not job(special[call], 8) and not job(special[call], 2**32 - 1)
    assert job(special[seccomp.PRLIMIT], 0) and not job(special[seccomp.KILL], 0)
    assert job(special[seccomp.PRCTL], 15) and not job(special[seccomp.PRCTL], seccomp.SET_SECCOMP)
    assert job(special[seccomp.FCNTL], 1, 3) and not job(special[seccomp.FCNTL], 1, 8)  # F_GETFL, F_SETOWN
    assert job(special[seccomp.IOCTL], 0, 0x541B) and not job(special[seccomp.IOCTL], 0, 0x5412)  # FIONREAD, TIOCSTI
    assert job(special[seccomp.SOCKETPAIR], 1) and not job(special[seccomp.SOCKETPAIR], 2)
    for address in (1, 2**32):
        assert not job(special[seccomp.SENDTO], 0, 0, 0, 0, address)
    for code in (wide, narrow):
        assert decide(code, audit ^ 1, 0) == seccomp.KILL_PROCESS
    assert decide(wide, audit, seccomp.X32) == seccomp.KILL_PROCESS
    for number in seccomp.PARENTS_OWN[architecture]:
        assert decide(wide, audit, number) == seccomp.ALLOW
    assert decide(wide, audit, special[seccomp.CLONE], fork) == seccomp.ALLOW
    assert decide(wide, audit, special[seccomp.CLONE], space) != seccomp.ALLOW


@pytest.fixture(scope="module", params=["bubblewrap", "subprocess"])
def pool(request: pytest.FixtureRequest):
    if reason := available(request.param):
        pytest.skip(reason)
    tier = {"bubblewrap": bubblewrap, "subprocess": plain}[request.param]
    pool = Pool(tier.launch(SandboxConfig(memory_mb=256)), 2, 20.0)
    yield pool
    pool.close()


def test_outcomes(pool: Pool) -> None:
    jobs = [
        Job("def f(x):\n    print('hm')\n    return (x, [1.5, True])\n", ("f(1)", "g(2)", "f('a')")),
        Job("import sys\nif __name__ == '__main__':\n    print(input().upper())\n    sys.exit()\n", stdin="hallo\n"),
        Job("while True: pass", seconds=0.3),
        Job("1 / 0", ("1",)),
        Job("def f(:", ("1",)),
        Job("import os\ndef f(): return 1\ndef g(): os._exit(0)\n", ("f()", "g()", "f()")),
        Job("x = bytearray(10**9)"),
        Job("import asyncio\nasync def f(): return 3\n", ("asyncio.run(f())",)),
        Job("import collections\n", ("collections.Counter('aab')",)),
    ]
    found = pool.run(jobs)
    assert [outcome.status for outcome in found] == [
        "ok", "ok", "timeout", "error", "error", "crashed", "limit", "ok", "ok",
    ]  # fmt: skip
    assert [result.value for result in found[0].results] == [(1, [1.5, True]), None, ("a", [1.5, True])]
    assert found[0].results[1].error == "NameError: name 'g' is not defined" and found[0].stdout == "hm\nhm\n"
    assert found[1].stdout == "HALLO\n"
    assert found[3].detail == "ZeroDivisionError: division by zero"
    assert [result.value for result in found[5].results] == [1], "what was finished before counts, no more is made up"
    assert found[7].results[0].value == 3 and found[8].results[0].value == {"a": 2, "b": 1}


def test_jobs_are_alike_in_every_run(pool: Pool) -> None:
    job = Job("import random\ndef f(): return random.random(), list({'a', 'b', 'c'}), hash('x')\n", ("f()",))
    found = {repr(outcome.results) for outcome in pool.run([job] * 6)}
    assert len(found) == 1


def test_closed_sandbox_starts_again(pool: Pool) -> None:
    pool.close()
    assert pool.run([Job("", ("1 + 1",))])[0].results[0].value == 2


def test_several_threads_share_a_sandbox(pool: Pool) -> None:
    found: dict[int, list[int]] = {}

    def work(number: int) -> None:
        jobs = [Job("", (f"{number} * 100 + {i}",)) for i in range(20)]
        found[number] = [outcome.results[0].value for outcome in pool.run(jobs)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [number * 100 + i for i in range(20)] for number in range(4)}


def kill_some(pool: Pool, count: int, kills: int) -> None:
    """Runs ``count`` jobs while parents are killed from outside; every outcome must be there, in order and right."""
    killed: list[int] = []
    stop = threading.Event()

    def killer() -> None:
        # the first as soon as one lives, or a quick machine is done before; the others while its successor works
        while len(killed) < kills and not stop.wait(0.7 if killed else 0.02):
            for worker in list(pool.living)[:1]:
                os.killpg(worker.process.pid, signal.SIGKILL)
                killed.append(worker.process.pid)

    thread = threading.Thread(target=killer)
    thread.start()
    outcomes = pool.run([Job(f"def f(x): return x * {i}", ("f(3)",)) for i in range(count)])
    stop.set()
    thread.join()
    assert killed and len(outcomes) == count
    for i, outcome in enumerate(outcomes):
        assert outcome.status == "ok" and outcome.results[0].value == 3 * i, (i, outcome)


@needs_bubblewrap
def test_killed_workers_lose_nothing() -> None:
    pool = Pool(bubblewrap.launch(SandboxConfig()), 2, 20.0)
    kill_some(pool, 300, 2)
    pool.close()


@needs_bubblewrap
@pytest.mark.slow
def test_killed_workers_lose_nothing_of_ten_thousand() -> None:
    pool = Pool(bubblewrap.launch(SandboxConfig()), 2, 20.0)
    kill_some(pool, 10_000, 12)
    pool.close()


def test_outage_is_told_and_quick() -> None:
    launch = plain.launch(SandboxConfig())
    object.__setattr__(launch, "python", "/nonexistent")
    pool = Pool(launch, 1, 5.0)
    began = time.monotonic()
    outcomes = pool.run([Job("", ("1",))] * 500)
    assert {outcome.status for outcome in outcomes} == {"infra_error"} and time.monotonic() - began < 5
    assert "does not start" in outcomes[0].detail
    pool.close()


@needs_monty
def test_monty_counts_clean_runs_alone() -> None:
    monty = Monty(SandboxConfig(workers=1))
    jobs = [
        Job("def f(x):\n    return (x, [1, True])\n", ("f(1)",)),
        Job("import heapq\n", ("1",)),
        Job("import re\ndef f(): return re.sub('a', 'b', 'a')\n", ("f()",)),
        Job("def f(): return 1 / 0\n", ("f()",)),
        Job("class A: pass\n", ("A()",)),
        Job("print(1)"),
        Job("def f(x: List[int]): return 1\n", ("f([])",)),
        Job("def f(): return round(2.675, 2)\n", ("f()",)),
    ]
    found = monty.run(jobs)
    monty.close()
    assert [outcome.status for outcome in found] == ["ok"] + ["unsupported"] * 7
    assert found[0].results[0].value == (1, [1, True])


@needs_monty
def test_monty_alone_under_auto_never_says_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monty = Monty(SandboxConfig(workers=1), last=True)
    [outcome] = monty.run([Job("def f(): return 1 / 0\n", ("f()",))])
    monty.close()
    assert outcome.status == "infra_error" and "bubblewrap" in outcome.detail


def test_nothing_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module = sys.modules[build_function.__module__]
    monkeypatch.setattr(module, "available", lambda tier: "it is not there")
    with pytest.raises(UserError, match=r"apt-get install bubblewrap.*pip install 'trivium\[sandbox\]'"):
        build(SandboxConfig(tier="auto", seconds=1.25))


def test_plain_subprocess_warns() -> None:
    with pytest.warns(UserWarning, match="your rights"):
        build(SandboxConfig(tier="subprocess", seconds=1.5))
