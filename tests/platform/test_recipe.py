from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium import recipe
from trivium.errors import UserError
from trivium.objectives.presets import PRESETS
from trivium.strict_yaml import parse_yaml, write_yaml


@pytest.mark.parametrize("name", recipe.names())
def test_shipped_recipes_load_and_their_texts_load_back(name: str) -> None:
    loaded = recipe.load(name)
    assert loaded.name == name
    assert loaded.description
    for text in (recipe.dump(loaded), recipe.show(name)):
        assert recipe.resolve(parse_yaml(text, "text")) == loaded
    assert recipe.dump(loaded) == recipe.dump(recipe.resolve(parse_yaml(recipe.dump(loaded), "text")))


def test_the_recipes_of_the_tool_are_shipped() -> None:
    assert {"primer", "restaurant", "shakespeare", "mawps", "gsm8k-qwen3"} <= set(recipe.names())


def test_overrides_reach_stages_tasks_lists_and_whole_paths(tiny: Path) -> None:
    overrides = [
        "rl.steps=50",
        "pretrain.optimizer.lr=1e-4",
        "pretrain.data.0.source=other.txt",
        "pretrain.data.1.source=more.txt",
        "problems.samples=4",
        "seed=7",
        "stages.sft.batch_size=2",
        "rl.sampling.stop=[a, b]",
    ]
    loaded = recipe.load(tiny, overrides)
    stages: Any = loaded.stages
    assert stages["rl"].steps == 50
    assert stages["pretrain"].optimizer.lr == 1e-4
    assert [source.source for source in stages["pretrain"].data] == ["other.txt", "more.txt"]
    assert loaded.evaluation["problems"].samples == 4
    assert loaded.seed == 7
    assert stages["sft"].batch_size == 2
    assert stages["rl"].sampling.stop == ["a", "b"]


def test_overrides_from_python_keep_their_types(tiny: Path) -> None:
    loaded = recipe.load(tiny, {"rl.steps": 50, "pretrain.data.0.source": "1e3"})
    stages: Any = loaded.stages
    assert stages["rl"].steps == 50
    assert stages["pretrain"].data[0].source == "1e3"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pretrian.steps=3", ["pretrian", "'pretrain'"]),
        ("rl.stepz=3", ["stages.rl", "'stepz'", "'steps'"]),
        ("rl.sampling.temprature=3", ["stages.rl.sampling", "'temperature'"]),
        ("rl.rewards.right.wieght=3", ["stages.rl.rewards.right", "'weight'"]),
        ("pretrain.data.0.sauce=x", ["stages.pretrain.data.0", "'source'"]),
        ("problems.treshold=0.5", ["evaluation.problems", "'threshold'"]),
        ("sede=1", ["'sede'", "'seed'"]),
        ("rl.steps=many", ["stages.rl.steps is 'many', but should be a whole number"]),
        ("rl.sampling=true", ["should be a mapping of keys to values; it takes temperature, top_k"]),
        ("stages.rl=null", ["stages.rl is None, but should be a mapping of keys to values"]),
        ("rl.optimizer.betas=[1, 2, 3]", ["stages.rl.optimizer.betas", "should hold at most 2 entries"]),
        ("sft.lr=0.1", ["stages.sft has no key 'lr' (did you mean 'optimizer.lr'?)"]),
        ("rl.steps=0", ["stages.rl.steps", "greater than or equal to 1"]),
        ("rl.kl=k4", ["stages.rl.kl", "k2, k3"]),
        ("rl.preset=gropo", ["stages.rl.preset", "'grpo'"]),
        ("pretrain.data.3.source=x", ["list of 1"]),
        ("pretrain.steps.more=1", ["stages.pretrain.steps"]),
        ("stages.extra.steps=1", ["stages.extra.kind", "'rl'"]),
        ("rl.init=stf", ["stages.rl.init", "'sft'"]),
        ("sft.init=rl", ["stages.sft.init", "comes later"]),
        ("rl.steps", ["key=value"]),
        ("rl.sampling={temperature: 1, temperature: 0}", ["twice"]),
        ("paths.text=x", ["paths.text"]),
        ("rl.prompts=null", ["stages.rl.prompts"]),
        ("rl.preset=null", ["preset", "advantage"]),
    ],
)
def test_a_mistake_is_one_sentence_with_the_nearest_key(tiny: Path, override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        recipe.load(tiny, [override])
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_missing_key_says_what_it_is_for(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: r\nstages: {sft: {init: ./model}}")
    with pytest.raises(UserError, match=r"stages\.sft\.data is missing; give conversations"):
        recipe.load(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nname: b\n", "'name' stands twice"),
        ("name: [a\n", "line 2"),
        ("- a\n", "a list"),
        ("? [a]\n: b\n", "plain text"),
        ("", "empty"),
        ("name: r\nstages: {}\n", "stages is empty"),
        ("name: r\nstages: {'../x': {kind: sft, init: ./m, data: []}}\n", "becomes a folder"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        recipe.load(path)
    assert "r.yaml" in str(caught.value)


def test_unknown_recipe_names_the_nearest_and_lists_all() -> None:
    with pytest.raises(UserError, match="did you mean 'primer'") as caught:
        recipe.load("primmer")
    assert all(name in str(caught.value) for name in recipe.names())
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        recipe.load("nowhere.yaml")
    assert recipe.nearest("nope", ["code"]) == ""


def test_presets_fill_only_what_is_left_open(tiny: Path) -> None:
    loaded: Any = recipe.load(tiny, ["rl.preset=dapo", "rl.clip_high=0.5"]).stages["rl"]
    assert loaded.clip_high == 0.5
    assert loaded.aggregation == PRESETS["dapo"]["aggregation"]


def test_another_preset_on_a_resolved_recipe_takes_effect(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.dump(recipe.load(tiny, ["rl.preset=dapo", "rl.kl=k2"])))
    loaded: Any = recipe.load(path, ["rl.preset=grpo"]).stages["rl"]
    assert loaded.clip_high == PRESETS["grpo"]["clip_high"]
    assert loaded.kl == "k2"  # the user's own choice stays


def test_paths_are_put_in_everywhere_and_can_be_overridden() -> None:
    loaded: Any = recipe.load("restaurant", ["paths.restaurants=../elsewhere"])
    sources = [source.source for stage in loaded.stages.values() for source in getattr(stage, "validation", ())]
    assert set(sources) == {"../elsewhere"}
    assert loaded.evaluation["slots"].prompts[0].source == "../elsewhere"
    assert recipe.load("mawps", ["paths.math=x/"]).stages["sft"].data[0].source == "x/mawps_train.jsonl"
    # A source may also be given itself; the path it stood for is then used by nobody, which is no mistake.
    assert recipe.load("shakespeare", ["pretrain.data.0.source=a.txt", "pretrain.validation.0.source=b.txt"])


def test_unknown_path_name() -> None:
    with pytest.raises(UserError, match=r"paths has no 'txt' \(did you mean 'text'\?\)"):
        recipe.load("shakespeare", ["pretrain.data.0.source=$txt"])


def test_show_explains_every_key(tiny: Path) -> None:
    text = recipe.show(tiny)
    assert "steps: 5" in text and "updates of the optimiser" in text and "default 1000" in text
    assert "none | reward | k2 | k3" in text
    for line in text.splitlines():
        key = line.split("#")[0].strip().removeprefix("- ").split(":")[0]
        if key in ("lr", "seed", "packing", "group_size"):
            assert "#" in line


def test_configuration_objects_from_python(tiny: Path) -> None:
    loaded = recipe.load(tiny)
    assert recipe.resolve(loaded) == loaded
    assert recipe.resolve(loaded) is not loaded


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_written_yaml_reads_back(value: Any) -> None:
    assert parse_yaml(write_yaml(value), "text") == value
    assert parse_yaml(write_yaml({"key": value}, flow=True), "text") == {"key": value}
    assert "\n" not in write_yaml(value, flow=True)


@pytest.mark.parametrize(
    "text", ["yes", "no", "1e5", "1e-3", "0x1f", "null", "~", "12:30:00", "2024-01-01", "on", ".5"]
)
def test_texts_that_look_like_something_else_stay_texts(text: str) -> None:
    import yaml

    written = write_yaml({"source": text})
    assert parse_yaml(written, "text") == {"source": text}
    assert yaml.safe_load(written) == {"source": text}


def test_numbers_as_people_write_them() -> None:
    assert parse_yaml("[1e-3, 3.0e-4, 1E5, -2.5, .5, yes, off, 010]", "t") == [
        1e-3,
        3e-4,
        1e5,
        -2.5,
        0.5,
        "yes",
        "off",
        8,
    ]


def test_an_alias_is_a_copy_and_not_the_same_place(tmp_path: Path) -> None:
    """Overriding what an anchor marks leaves the places that repeat it as they are; one within itself is refused."""
    from trivium.strict_yaml import parse_yaml

    values = parse_yaml("a: &x {b: [1]}\nc: *x\n", "here")
    values["a"]["b"].append(2)
    assert values["c"] == {"b": [1]}
    with pytest.raises(UserError, match="nested more than 50 deep"):
        parse_yaml("a: &x {b: *x}\n", "here")


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan"])
def test_numbers_are_finite(text: str) -> None:
    with pytest.raises(UserError, match=r"sft\.optimizer\.lr is -?(inf|nan), but should be a finite number"):
        recipe.load("primer", [f"sft.optimizer.lr={text}"])
