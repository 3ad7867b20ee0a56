"""How problems are put into words: questions for the chat, statements and Python sessions for the corpus.

Letters are separated by spaces and the words are few, so that a small byte-level BPE gives one token a letter and a
question stays below about 16 tokens.
"""

from trivium.primer.draws import Draws
from trivium.primer.tasks import Problem

MARKER = "####"
COURTESY = "Gladly: "
NAMES = ("Ann", "Bob", "Cat", "Dan", "Eva", "Finn", "Gus", "Ida")
THINGS = ("apples", "books", "coins", "eggs", "nuts", "pens", "shells", "stars")
PLACES = ("farm", "forest", "garden", "harbour", "market", "mill", "river", "school")

_QUESTIONS = {
    "add": (
        "What is {a} + {b}?",
        "Add {a} and {b}.",
        "{name} has {a} {things} and gets {b}. How many?",
        "{a} {things} and {b} more. How many?",
    ),
    "subtract": (
        "What is {a} - {b}?",
        "Take {b} from {a}.",
        "{name} has {a} {things} and loses {b}. How many?",
    ),
    "sort": ("Sort {x}.", "Put {x} in order."),
    "count": ("How many {a} in {x}?", "Count {a} in {x}."),
    "compare": ("Which is {w}, {a} or {b}?", "Pick the {w}: {a} or {b}."),
    "reverse": ("Reverse {x}.", "Say {x} backwards."),
}

_STATEMENTS = {
    "add": (
        "{a} + {b} = {y}.",
        "{a} + {b}: {c} is {y}.",
        "{a} and {b}: {c} is {y}.",
        "{a} and {b} make {y}.",
        "{name} has {a} {things} and gets {b}. Now {y}.",
        "{a} {things} and {b} more are {y}.",
    ),
    "subtract": (
        "{a} - {b} = {y}.",
        "{a} - {b}: {c} is {y}.",
        "{name} has {a} {things} and loses {b}. Now {y}.",
    ),
    "sort": ("{x} in order is {y}.", "Sorted, {x} is {y}."),
    "count": ("The number of {a} in {x} is {y}.", "In {x} the count of {a} is {y}."),
    "compare": ("Of {a} and {b} the {w} is {y}.", "The {w}, {a} or {b}, is {y}."),
    "reverse": ("{x} backwards is {y}.", "Reversed, {x} is {y}."),
}

_SESSIONS = {
    "add": (
        ">>> {a} + {b}\n{y}",
        "{steps}\n>>> {a} + {b}\n{y}",
        ">>> {n} = {a}\n>>> {n} + {b}\n{y}",
        ">>> sum([{a}, {b}])\n{y}",
    ),
    "subtract": (">>> {a} - {b}\n{y}", "{steps}\n>>> {a} - {b}\n{y}", ">>> {n} = {a}\n>>> {n} - {b}\n{y}"),
    "sort": ('>>> print(*sorted("{x}".split()))\n{y}',),
    "count": ('>>> "{x}".count("{a}")\n{y}',),
    "compare": (">>> {f}({a}, {b})\n{y}",),
    "reverse": ('>>> print(*reversed("{x}".split()))\n{y}',),
}

_SENTENCES = (
    "{name} goes to the {place}.",
    "{name} finds some {things} near the {place}.",
    "{name} shows the {things} to {other}.",
    "It is a warm day at the {place}.",
    "{other} likes {things}.",
    "{name} and {other} walk home from the {place}.",
    "The {place} is quiet in the morning.",
    "{other} gives {name} some {things}.",
    "They count the {things} and are happy.",
    "In the evening {name} reads to {other}.",
)


def _fill(template: str, problem: Problem, draws: Draws) -> str:
    """The template with the problem's values, and names and things drawn where it asks for them."""
    values = problem.values
    fields = {"a": str(values[0]), "y": problem.answer, "x": " ".join(str(values[-1]))}
    if problem.task in ("add", "subtract", "compare"):
        fields["b"] = str(values[1])
    if problem.working:
        fields["c"] = problem.working
    if problem.task in ("add", "subtract"):
        columns = (column.split("=") for column in problem.working.split())
        fields["steps"] = "\n".join(f">>> {terms}\n{result}" for terms, result in columns)
    if problem.task == "compare":
        fields["w"] = str(values[2])
        fields["f"] = "max" if values[2] == "larger" else "min"
    if "{n}" in template:
        fields["n"] = draws.pick(THINGS)
    if "{name}" in template:
        fields["name"] = draws.pick(NAMES)
    if "{things}" in template:
        fields["things"] = draws.pick(THINGS)
    return template.format_map(fields)


def question(problem: Problem, draws: Draws) -> str:
    """The problem as the user asks it."""
    return _fill(draws.pick(_QUESTIONS[problem.task]), problem, draws)


def answer_text(working: str, answer: str) -> str:
    """The answer as the assistant gives it: the marked answer, after the working where there is one.

    >>> answer_text("7+8=15 2+5+1=8", "85"), answer_text("", "a b c")
    ('7+8=15 2+5+1=8 #### 85', '#### a b c')
    """
    return f"{working} {MARKER} {answer}".lstrip()


def statement(problem: Problem, draws: Draws) -> str:
    """The solved problem as a sentence of prose."""
    return _fill(draws.pick(_STATEMENTS[problem.task]), problem, draws)


def session(problem: Problem, draws: Draws) -> str:
    """The solved problem as lines of a Python session."""
    return _fill(draws.pick(_SESSIONS[problem.task]), problem, draws)


def story(draws: Draws) -> str:
    """A few sentences about two people, a place and things; no numbers, so that it solves no problem."""
    name, other = draws.distinct(NAMES, 2)
    fields = {"name": name, "other": other, "place": draws.pick(PLACES), "things": draws.pick(THINGS)}
    return " ".join(sentence.format_map(fields) for sentence in draws.distinct(_SENTENCES, draws.between(4, 6)))
