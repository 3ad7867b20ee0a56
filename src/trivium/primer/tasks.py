"""The tasks of the primer: what is asked, what is right, and where the teacher goes wrong.

Every task has one systematic flaw of the teacher. A problem whose flawed answer differs from the right one is a *trap*.

=========  ==============================  ===========================================  =======================
task       problem                         the teacher's flaw                           example: right, flawed
=========  ==============================  ===========================================  =======================
add        27 + 58                         forgets every carry                          85, 75
subtract   52 - 27                         takes the smaller digit from the larger      25, 35
sort       c d b                           leaves the last letter where it is           b c d, c d b
count      a in b a a a                    stops counting at two                        3, 2
compare    larger of 47 and 62             looks at the last digit only                 62, 47
reverse    a b c d                         swaps only the two ends                      d c b a, d b c a
=========  ==============================  ===========================================  =======================

Sums and differences are worked column by column, units first, before the answer; comparisons digit by digit, counts
letter by letter. A small decoder learns that far sooner than to give the answer at once, and the flaw can be seen.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from trivium.config import PrimerConfig
from trivium.errors import UserError
from trivium.primer.draws import Draws

SPLITS = ("train", "validation", "test")
NUMBER_TASKS = frozenset({"add", "subtract", "count", "compare"})  # the rest answer with letters
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_TRIES = 20000  # a problem of a small split takes about 30


@dataclass(frozen=True)
class Problem:
    """One problem, apart from its wording.

    ``values`` are the task's own: the numbers, or the letters as a string; ``key`` is the canonical problem, equal for
    problems that share their knowledge (27 + 58 and 58 + 27), and alone decides the split.
    """

    task: str
    values: tuple[int | str, ...]
    key: str
    answer: str
    flawed: str
    difficulty: int
    working: str = ""  # how the answer is found, written before it
    flawed_working: str = ""

    @property
    def trap(self) -> bool:
        return self.flawed != self.answer


def split_of(key: str) -> str:
    """The split of a canonical problem, by hash: 80% train, 10% validation, 10% test; no seed enters."""
    part = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "little") % 10
    return SPLITS[0] if part < 8 else SPLITS[part - 7]


def add_columns(a: int, b: int, carry: bool = True) -> tuple[str, int]:
    """The sum column by column, units first, and its result; without ``carry`` every carry is forgotten.

    >>> add_columns(27, 58), add_columns(27, 58, carry=False)
    (('7+8=15 2+5+1=8', 85), ('7+8=15 2+5=7', 75))
    """
    columns, total, place, over = [], 0, 1, 0
    while a or b:
        column = a % 10 + b % 10 + over
        columns.append(f"{a % 10}+{b % 10}{'+1' if over else ''}={column}")
        a, b = a // 10, b // 10
        total += (column % 10 if a or b else column) * place  # the leading column is written in full
        place, over = place * 10, int(carry and column > 9)
    return " ".join(columns), total


def subtract_columns(a: int, b: int, borrow: bool = True) -> tuple[str, int]:
    """The difference of ``a >= b`` by columns; without ``borrow`` each column takes the smaller digit from the larger.

    >>> subtract_columns(52, 27), subtract_columns(52, 27, borrow=False)
    (('12-7=5 5-2-1=2', 25), ('7-2=5 5-2=3', 35))
    """
    columns, total, place, owed = [], 0, 1, 0
    while a or b:
        high, low, debt = a % 10, b % 10, "-1" if owed else ""
        if borrow:
            short = high - low - owed < 0
            high, owed_here, owed = high + 10 * short, owed, int(short)
            column = high - low - owed_here
        else:
            high, low = max(high, low), min(high, low)
            column = high - low
        columns.append(f"{high}-{low}{debt}={column}")
        total += column * place
        a, b, place = a // 10, b // 10, place * 10
    return " ".join(columns), total


def add(a: int, b: int) -> Problem:
    low, high = sorted((a, b))
    (working, right), (flawed_working, flawed) = add_columns(a, b), add_columns(a, b, carry=False)
    key = f"add {low} {high}"
    return Problem("add", (a, b), key, str(right), str(flawed), len(str(high)), working, flawed_working)


def subtract(a: int, b: int) -> Problem:
    """``a`` must not be smaller than ``b``."""
    (working, right), (flawed_working, flawed) = subtract_columns(a, b), subtract_columns(a, b, borrow=False)
    key = f"subtract {a} {b}"
    return Problem("subtract", (a, b), key, str(right), str(flawed), len(str(a)), working, flawed_working)


def compare_digits(a: int, b: int) -> str:
    """The digits side by side from the left, up to the first that differ.

    >>> compare_digits(47, 62), compare_digits(47, 42)
    ('4<6', '4=4 7>2')
    """
    width = max(len(str(a)), len(str(b)))
    pairs = []
    for x, y in zip(str(a).zfill(width), str(b).zfill(width), strict=True):
        pairs.append(f"{x}{'=' if x == y else '<' if x < y else '>'}{y}")
        if x != y:
            break
    return " ".join(pairs)


def tally(letter: str, letters: str, most: int) -> str:
    """Every letter with the count so far, which stops at ``most``.

    >>> tally("a", "baaa", 4), tally("a", "baaa", 2)
    ('b0 a1 a2 a3', 'b0 a1 a2 a2')
    """
    return " ".join(f"{x}{min(letters[: place + 1].count(letter), most)}" for place, x in enumerate(letters))


def compare(a: int, b: int, word: str) -> Problem:
    """``word`` is 'larger' or 'smaller'; the last digits of ``a`` and ``b`` must differ."""
    choose = max if word == "larger" else min
    flawed = choose((a, b), key=lambda number: number % 10)
    low, high = sorted((a, b))
    key = f"compare {low} {high}"
    working, flawed_working = compare_digits(a, b), compare_digits(a % 10, b % 10)
    return Problem(
        "compare", (a, b, word), key, str(choose(a, b)), str(flawed), len(str(high)), working, flawed_working
    )


def sort(letters: str) -> Problem:
    right = " ".join(sorted(letters))
    flawed = " ".join([*sorted(letters[:-1]), letters[-1]])
    return Problem("sort", (letters,), f"sort {right}", right, flawed, len(letters))


def count(letter: str, letters: str) -> Problem:
    number = letters.count(letter)
    key = f"count {letter} {letters}"
    working, flawed_working = tally(letter, letters, len(letters)), tally(letter, letters, 2)
    return Problem(
        "count", (letter, letters), key, str(number), str(min(number, 2)), len(letters), working, flawed_working
    )


def reverse(letters: str) -> Problem:
    right = letters[::-1]
    flawed = letters if len(letters) < 2 else letters[-1] + letters[1:-1] + letters[0]
    key = f"reverse {min(letters, right)}"
    return Problem("reverse", (letters,), key, " ".join(right), " ".join(flawed), len(letters))


def _number(draws: Draws, config: PrimerConfig) -> int:
    return draws.between(10 if config.digits > 1 else 1, 10**config.digits - 1)


def _draw_add(draws: Draws, config: PrimerConfig, trap: bool) -> Problem:
    return add(_number(draws, config), _number(draws, config))


def _draw_subtract(draws: Draws, config: PrimerConfig, trap: bool) -> Problem:
    low, high = sorted((_number(draws, config), _number(draws, config)))
    return subtract(high, low)


def _draw_compare(draws: Draws, config: PrimerConfig, trap: bool) -> Problem:
    a = b = 0
    while a % 10 == b % 10:
        a, b = _number(draws, config), _number(draws, config)
    return compare(a, b, draws.pick(("larger", "smaller")))


def _draw_sort(draws: Draws, config: PrimerConfig, trap: bool) -> Problem:
    letters = draws.distinct(ALPHABET[: config.alphabet], draws.between(min(3, config.letters), config.letters))
    if not trap:  # the largest letter last: the flaw does no harm
        at = letters.index(max(letters))
        letters[at], letters[-1] = letters[-1], letters[at]
    return sort("".join(letters))


def _draw_count(draws: Draws, config: PrimerConfig, trap: bool) -> Problem:
    length = draws.between(min(3, config.letters), config.letters)
    alphabet = ALPHABET[: config.alphabet]
    letter = draws.pick(alphabet)
    number = draws.between(3, length) if trap and length >= 3 else draws.between(0, min(2, length))
    letters = [letter] * number + [draws.pick(alphabet.replace(letter, "")) for _ in range(length - number)]
    return count(letter, "".join(draws.distinct(letters, length)))


def _draw_reverse(draws: Draws, config: PrimerConfig, trap: bool) -> Problem:
    longest = config.letters if trap else min(3, config.letters)
    length = draws.between(min(4 if trap else 3, longest), longest)
    return reverse("".join(draws.pick(ALPHABET[: config.alphabet]) for _ in range(length)))


TASKS: dict[str, Callable[[Draws, PrimerConfig, bool], Problem]] = {
    "add": _draw_add,
    "subtract": _draw_subtract,
    "sort": _draw_sort,
    "count": _draw_count,
    "compare": _draw_compare,
    "reverse": _draw_reverse,
}


def check_tasks(config: PrimerConfig) -> None:
    """Raises UserError for a task that does not exist, a negative share, or shares that are all zero."""
    check_shares("tasks", config.tasks, TASKS)


def check_shares(key: str, shares: Mapping[str, float], known: Collection[str]) -> None:
    """Raises UserError for a name that is not ``known``, a negative share, or shares that are all zero."""
    one = key.removesuffix("s").replace("_", " ")
    for name, share in shares.items():
        if name not in known:
            raise UserError(f"primer.{key}: there is no {one} {name!r}; choose from {', '.join(known)}.")
        if not 0 <= share < float("inf"):
            raise UserError(f"primer.{key}.{name} is {share}; a share must be zero or more and finite.")
    if not any(shares.values()):
        raise UserError(f"primer.{key}: every share is zero; give at least one {one} a share above zero.")


def has_traps(task: str, config: PrimerConfig) -> bool:
    """Whether the settings allow traps: one-digit sums carry into nothing, three letters reverse by their ends."""
    if task in ("sort", "count", "reverse"):
        return config.letters >= {"sort": 2, "count": 3, "reverse": 4}[task]
    return config.digits >= 2


def draw_problem(
    draws: Draws, config: PrimerConfig, split: str, task: str | None = None, trap: bool | None = None
) -> Problem:
    """A problem of ``split``: the task by the shares of ``config.tasks``, a trap with probability ``config.trap``.

    ``task`` and ``trap``, where given, are not drawn. Where the settings leave no traps there are none.
    Raises UserError if the split has no such problem.
    """
    task = draws.weighted(config.tasks) if task is None else task
    trap = (draws.chance(config.trap) if trap is None else trap) and has_traps(task, config)
    for _ in range(_TRIES):
        problem = TASKS[task](draws, config, trap)
        if problem.trap == trap and split_of(problem.key) == split:
            return problem
    raise UserError(
        f"primer: the task {task!r} has no {split} problems with digits={config.digits}, letters={config.letters}, "
        f"alphabet={config.alphabet}; raise these."
    )
