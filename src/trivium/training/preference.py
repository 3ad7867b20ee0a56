"""Rankings and labels as preference optimisation learns from them: prompts, answers as tokens, what was said of them.

What counts is the sum of the log-probabilities of an answer's tokens, its stop token included where the answer is
finished, at temperature 1 and over the whole vocabulary, whatever settings it was sampled with: the policy that is
trained is the one without them. An answer that does not fit into the context is left out with its pairs, of policy and
reference alike, since half an answer has another probability.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from trivium.config import DPOConfig
from trivium.data.records import LabelledAnswer, Message
from trivium.feedback.rankings.record import UNRANKED, Ranking
from trivium.text.chat import prompt_ids, response_ids
from trivium.text.tokenizer import Tokenizer
from trivium.training.reward import RankedTask, group_tasks, split_tasks, tokenise

Tokens = tuple[int, ...]
LogProbs = Sequence[float]  # of a task's answers, in their order
GOOD, BAD = 0, 1  # what stands in place of tiers where a ranking is read as labels


@dataclass(frozen=True)
class PairedTask:
    """A prompt, the distinct answers to it that something was said of, as tokens, and what was said.

    Answers are named by their place in ``answers``, and every mapping says what an entry counts:

    * ``pairs``: (chosen, rejected);
    * ``ties``: two answers of one tier, the lower number first;
    * ``soft``: (likelier, other, probability that the likelier is better), of an annotator that says how sure it is;
    * ``lists``: whole rankings, as the (answer, tier) of all that was ranked; each counts 1;
    * ``labels``: (answer, whether it is good);
    * ``best``: what is imitated beside.

    The pairs of one ranking add up to 1, however many they are, and so do its labels and its best answers. ``other`` is
    a prompt that is not theirs, under which the answers tell how far policy and reference are apart (kto).
    """

    task: RankedTask
    prompt: Tokens
    answers: tuple[Tokens, ...]
    pairs: Mapping[tuple[int, int], float] = field(default_factory=dict)
    ties: Mapping[tuple[int, int], float] = field(default_factory=dict)
    soft: Mapping[tuple[int, int, float], float] = field(default_factory=dict)
    lists: tuple[tuple[tuple[int, int], ...], ...] = ()
    labels: Mapping[tuple[int, bool], float] = field(default_factory=dict)
    best: Mapping[int, float] = field(default_factory=dict)
    other: Tokens = ()

    @property
    def size(self) -> int:
        """Tokens in a forward pass, which holds the prompt once."""
        return len(self.prompt) + sum(map(len, self.answers))

    @property
    def weight(self) -> float:
        """What the task counts in the mean over an update."""
        said = (*self.pairs.values(), *self.ties.values(), *self.soft.values(), *self.labels.values())
        return sum(said) + len(self.lists)

    @property
    def comparisons(self) -> int:
        """How many things were said of the answers: pairs, rankings as a whole, or labels."""
        return len(self.pairs) + len(self.ties) + len(self.soft) + len(self.lists) + len(self.labels)

    def mismatched(self) -> "PairedTask":
        """The same answers under the ``other`` prompt."""
        return replace(self, prompt=self.other)


def paired_tasks(
    rankings: Iterable[Ranking], tokenizer: Tokenizer, limit: int, config: DPOConfig
) -> tuple[list[PairedTask], int]:
    """Tasks that hold something to learn from by the loss of ``config``, and how many responses are longer than
    ``limit`` tokens with their prompt.

    Tasks are made as for a reward model (``group_tasks``). Unranked responses take part in nothing. A ranking counts 1,
    shared out evenly among its pairs: one of nine responses has 36 pairs, and would else count as much as 36 of two.
    """
    tasks = group_tasks(rankings)
    # before any response is left out, likewise
    ordered = frozenset(ranking.id for task in tasks for ranking in task.rankings if max(ranking.tiers, default=0) > 0)
    marks = config.loss == "kto"
    if marks:  # before any response is left out: the second best of a ranking is not good because the best is too long
        tasks = [replace(task, rankings=tuple(map(_marked, task.rankings))) for task in tasks]
    fitting, too_long = tokenise(tasks, tokenizer, limit, config.ties, config.by_probabilities, alone=marks)
    found = [_Said(task, config, ordered).task() for task in fitting]
    return [task for task in found if task.weight], too_long


def _marked(ranking: Ranking) -> Ranking:
    """The ranking with marks for tiers: the best tier is good, the last bad, what lies between unranked. Where none is
    acceptable all are bad, ranked or not; a lone tier says nothing."""
    last = max(ranking.tiers)
    marks = {last: BAD, 0: GOOD} if last > 0 else {}
    tiers = [BAD if ranking.all_bad else marks.get(tier, UNRANKED) for tier in ranking.tiers]
    return replace(ranking, tiers=tuple(tiers))


def labelled_tasks(answers: Iterable[LabelledAnswer], tokenizer: Tokenizer, limit: int) -> tuple[list[PairedTask], int]:
    """Tasks of answers with a label, one a prompt in the order of their first answer, and how many were too long.

    Each row counts 1, a row that is there twice 2.
    """
    by_prompt: dict[tuple[Message, ...], list[LabelledAnswer]] = {}
    for answer in answers:
        by_prompt.setdefault(answer.prompt.messages, []).append(answer)
    tasks, too_long = [], 0
    for messages, rows in by_prompt.items():
        prompt = tuple(prompt_ids(tokenizer, messages))
        numbers: dict[Tokens, int] = {}
        labels: dict[tuple[int, bool], float] = {}
        for row in rows:
            ids = tuple(response_ids(tokenizer, messages, row.text, True))
            too_long += len(ids) > limit
            if len(ids) <= limit:
                key = (numbers.setdefault(ids[len(prompt) :], len(numbers)), row.good)
                labels[key] = labels.get(key, 0.0) + 1.0
        best = {number: weight for (number, good), weight in labels.items() if good}
        if labels:
            whole = RankedTask(rows[0].prompt, (), ())
            tasks.append(PairedTask(whole, prompt, tuple(numbers), labels=labels, best=best))
    return tasks, too_long


def held_out(task: PairedTask, share: float) -> bool:
    """Whether the task is for validation: ``share`` of the conversations by a hash of their opening (``split_tasks``),
    which lie among those that a reward model of a ``test_share`` at least as large is tested with."""
    return bool(split_tasks([task.task], share, 0.0)[1])


def with_others(tasks: Sequence[PairedTask], limit: int) -> list[PairedTask]:
    """The tasks with the prompt of the next one as their ``other``, the first one's for the last.

    The next whose prompt differs and leaves room for the answers within ``limit`` tokens; where there is none, no
    prompt, and the task takes no part in the estimate.

    >>> none = RankedTask(None, (), ())
    >>> [task.other for task in with_others([PairedTask(none, (p,), ((7,),)) for p in (1, 1, 2)], 9)]
    [(2,), (2,), (1,)]
    """
    prompts = [task.prompt for task in tasks]
    made = []
    for number, task in enumerate(tasks):
        room = limit - max(map(len, task.answers), default=0)
        turned = (prompts[(number + ahead) % len(prompts)] for ahead in range(1, len(prompts)))
        other = next((prompt for prompt in turned if prompt != task.prompt and len(prompt) <= room), ())
        made.append(replace(task, other=other))
    return made


class _Said:
    """What the rankings of one task say, with responses of equal tokens taken as one answer.

    Answers are kept as tokens until all is collected: those that nothing was said of are then left out.
    """

    def __init__(self, task: RankedTask, config: DPOConfig, ordered: frozenset[str]) -> None:
        """``ordered``: ids of the rankings that had a second tier before any response was left out."""
        self.whole, self.config, self.ordered = task, config, ordered
        self.own = [ids[task.prompt_length :] if ids else None for ids in task.tokens]
        if config.normalised:  # an answer without tokens has no mean
            self.own = [ids or None for ids in self.own]
        self.pairs: dict[tuple[Tokens, Tokens], float] = {}
        self.ties: dict[tuple[Tokens, Tokens], float] = {}
        self.soft: dict[tuple[Tokens, Tokens, float], float] = {}
        self.lists: list[list[tuple[Tokens, int]]] = []
        self.labels: dict[tuple[Tokens, bool], float] = {}
        self.best: dict[Tokens, float] = {}
        learn = {"kto": self._label, "plackett_luce": self._list}.get(config.loss, self._compare)
        for ranking in task.rankings:
            if learn(ranking) and config.imitation:
                _share(self.best, self._best(ranking))

    def _known(self, numbers: Iterable[tuple[int, int]]) -> list[tuple[Tokens, Tokens]]:
        """Pairs of responses as pairs of answers; an answer is no pair with itself."""
        found = [(self.own[i], self.own[j]) for i, j in numbers]
        return [(one, other) for one, other in found if one is not None and other is not None and one != other]

    # each of these says whether there was anything to learn

    def _compare(self, ranking: Ranking) -> bool:
        if ranking.preferences and self.config.by_probabilities:
            soft = []
            for i, j, probability in ranking.preferences:
                likelier, other = (i, j) if probability >= 0.5 else (j, i)
                soft += [(*pair, max(probability, 1 - probability)) for pair in self._known([(likelier, other)])]
            _share(self.soft, soft)
            return bool(soft)
        pairs = self._known(ranking.pairs)
        ties = [] if self.config.ties == "ignore" else self._known(ranking.ties)
        number = len(pairs) + len(ties)
        _share(self.pairs, pairs, number)
        _share(self.ties, ties, number)
        return number > 0

    def _list(self, ranking: Ranking) -> bool:
        of = zip(self.own, ranking.tiers, strict=True)
        ranked = [(answer, tier) for answer, tier in of if answer is not None and tier != UNRANKED]
        entries = list(dict.fromkeys(ranked))  # equal answers of one tier are one
        placed = Counter(answer for answer, _ in entries)
        entries = [entry for entry in entries if placed[entry[0]] == 1]  # one of two tiers has no place
        tiers = {tier for _, tier in entries}
        if found := len(tiers) > 1 or (len(entries) > 1 and self.config.ties == "soft"):
            self.lists.append(entries)
        return found

    def _label(self, ranking: Ranking) -> bool:
        """Of a ranking that was ``_marked``."""
        of = zip(ranking.tiers, self.own, strict=True)
        labels = [(ids, tier == GOOD) for tier, ids in of if tier != UNRANKED and ids is not None]
        _share(self.labels, labels)
        return bool(labels)

    def _best(self, ranking: Ranking) -> list[Tokens]:
        """The best tier, where there is a worse one and it is good enough to be imitated. What is too long is unranked
        here, and what comes after it is no better for that."""
        worse = self.config.loss == "kto" or ranking.id in self.ordered  # kto: a lone tier has no mark
        if ranking.all_bad or not worse:
            return []
        of = zip(ranking.tiers, self.own, strict=True)
        return list(dict.fromkeys(ids for tier, ids in of if tier == 0 and ids))

    def task(self) -> PairedTask:
        """The task with numbers in place of tokens, its answers in the order of the responses."""
        said = {ids for pair in (*self.pairs, *self.ties) for ids in pair}
        said |= {ids for one, other, _ in self.soft for ids in (one, other)} | {ids for ids, _ in self.labels}
        said |= {ids for entries in self.lists for ids, _ in entries}
        if said:
            said |= set(self.best)
        answers = tuple(dict.fromkeys(ids for ids in self.own if ids is not None and ids in said))
        number = {ids: place for place, ids in enumerate(answers)}
        ties: dict[tuple[int, int], float] = {}
        for (one, other), weight in self.ties.items():
            low, high = sorted((number[one], number[other]))
            ties[low, high] = ties.get((low, high), 0.0) + weight
        return PairedTask(
            self.whole,
            next((ids[: self.whole.prompt_length] for ids in self.whole.tokens if ids), ()),
            answers,
            {(number[one], number[other]): weight for (one, other), weight in self.pairs.items()},
            ties,
            {(number[one], number[other], p): weight for (one, other, p), weight in self.soft.items()},
            tuple(tuple((number[ids], tier) for ids, tier in entries) for entries in self.lists),
            {(number[ids], good): weight for (ids, good), weight in self.labels.items()},
            {number[ids]: weight for ids, weight in self.best.items() if ids in number},
        )


def _share(into: dict, entries: Sequence, number: int | None = None) -> None:  # type: ignore[type-arg]
    """Add 1, shared out evenly among ``number`` entries (these, unless told), to what each counts."""
    for entry in entries:
        into[entry] = into.get(entry, 0.0) + 1 / (number or len(entries))
