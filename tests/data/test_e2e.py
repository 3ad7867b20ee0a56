import json
from pathlib import Path

import pytest

from trivium.config import RecipeConfig, SourceConfig
from trivium.data import e2e, sources
from trivium.errors import UserError

RECIPE = RecipeConfig(name="test", stages={})
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "restaurants"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder ../shared/data is absent")


def source(path: Path | str = DATA, split: str | None = None, **settings) -> SourceConfig:
    return SourceConfig(source=str(path), adapter="e2e", split=split, **settings)


def prompts(split: str, **settings):
    return sources.prompts([source(split=split, **settings)], RECIPE)[0]


def test_parse() -> None:
    text = "name[The Mill], customer rating[5 out of 5], near[Café Rouge], priceRange[£20-25]"
    slots = e2e.parse(text)
    assert list(slots) == ["name", "customer rating", "near", "priceRange"] and slots["priceRange"] == "£20-25"
    for bad in ("", "name", "name[x", "name[x] area[y]", "name[x], name[y]", "name[a[b]]"):
        with pytest.raises(ValueError):
            e2e.parse(bad)


@needs_data
def test_splits_share_no_representation_and_lose_none() -> None:
    by_split = {split: prompts(split) for split in e2e.SPLITS}
    keys = {s: {frozenset(p.answer["mr"].items()) for p in found} for s, found in by_split.items()}
    assert sum(len(key) for key in keys.values()) == len(frozenset().union(*keys.values())) == 547 + 630
    assert len(keys["train"]) > 700 and all(len(key) > 60 for key in keys.values())

    def delexicalised(split: str) -> set:
        return {frozenset((s, s in ("name", "near") or v) for s, v in key) for key in keys[split]}

    assert not delexicalised("train") & delexicalised("test")
    assert not delexicalised("train") & delexicalised("validation")


@needs_data
def test_unseen_names_occur_nowhere_else() -> None:
    unseen = {prompt.answer["mr"]["name"] for prompt in prompts("unseen_names")}
    assert 3 <= len(unseen) <= 6
    for split in ("train", "validation", "test"):
        for prompt in prompts(split):
            text = json.dumps([prompt.answer, prompt.messages[0].content], ensure_ascii=False).lower()
            assert not any(name.lower() in text for name in unseen)


def test_reference_that_mentions_a_held_out_name_is_left_out(tmp_path) -> None:
    names = [f"Place {letter}" for letter in "ABCDEFGH"]
    (held_out,) = e2e.held_out_names(set(names), 0.1)
    other = next(name for name in names if name != held_out)
    rows = [{"mr": f"name[{name}], food[x]", "ref": f"{name} has x."} for name in names]
    rows += [{"mr": f"name[{other}], food[x]", "ref": f"Unlike {held_out.upper()}, it has x."}]
    rows += [{"mr": f"name[{other}], near[{held_out}]", "ref": "It is near."}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"validation": 0, "test": 0, "unseen": 0.1}
    train, unseen = (
        sources.conversations([source(path, split, options=options)], RECIPE)[0] for split in ("train", "unseen_names")
    )
    assert len(train) == 7 and held_out.lower() not in str(train).lower()
    assert len(unseen) == 2


@needs_data
def test_records() -> None:
    config = source(split="train", limit=50)
    document = next(sources.documents([config], RECIPE))
    talk = sources.conversations([config], RECIPE)[0][0]
    assert document.text == "\n".join(message.content for message in talk.messages)
    first = prompts("train")[0]
    assert first.messages[0] == talk.messages[0]
    assert talk.messages[1].content in first.answer["references"]
    assert len(prompts("train", limit=5)) == 5
    assert len({prompt.id for prompt in prompts("train")}) == len(prompts("train"))


@needs_data
def test_the_adapter_reads_the_files_it_is_told() -> None:
    only = prompts("train", options={"files": ["e2e_train.jsonl"], "validation": 0, "test": 0, "unseen": 0})
    assert len(only) == 547


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": {"fils": []}}, "no option 'fils'"),
        ({"options": {"test": 2}}, "shares from 0 to 1"),
        ({"options": {"files": "x.jsonl"}}, "a list of file names"),
        ({"split": "dev"}, "the splits of e2e are"),
        ({"fields": {"mr": "x"}}, "takes mr from 'x'"),
    ],
)
def test_bad_settings(tmp_path, settings: dict, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"mr": "name[x]", "ref": "y"}\n')
    with pytest.raises(UserError, match=message):
        sources.prompts([source(path, **settings)], RECIPE)


def test_bad_rows(tmp_path) -> None:
    with pytest.raises(UserError, match=r"has no e2e_train.jsonl and no e2e_test.jsonl"):
        sources.prompts([source(tmp_path)], RECIPE)
    path = tmp_path / "a.jsonl"
    path.write_text('{"mr": "name x", "ref": "y"}\n')
    with pytest.raises(UserError, match="line 1: expected a meaning representation"):
        sources.prompts([source(path)], RECIPE)
    path.write_text('{"meaning": "name[x]", "ref": "y"}\n')
    with pytest.raises(UserError, match="no text in field 'mr'"):
        sources.prompts([source(path)], RECIPE)


def test_hub_fields_and_splits(monkeypatch) -> None:
    import datasets

    def load(name, part, split, streaming):
        assert name == "tuetschek/e2e_nlg" and streaming
        return iter([{"meaning_representation": f"name[{split}], area[x]", "human_reference": split}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    settings = {"options": {"validation": 0, "test": 0, "unseen": 0}}
    found = sources.prompts([source("tuetschek/e2e_nlg", **settings)], RECIPE)[0]
    assert [prompt.answer["references"] for prompt in found] == [["train"], ["validation"], ["test"]]
    seen: list[str | None] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, part, **_: seen.append(part) or load(name, part, **_))
    sources.prompts([source("tuetschek/e2e_nlg:cleaned", **settings)], RECIPE)
    assert seen == ["cleaned"] * 3
