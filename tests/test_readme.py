"""What the pages promise exists: commands, recipes, keys, presets, verifiers, files, links; and their examples run."""

import ast
import doctest
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import trivium
from trivium import cli
from trivium.feedback.verifiers import KINDS
from trivium.objectives.presets import PRESETS
from trivium.recipe import load, names, read, resolve
from trivium.strict_yaml import parse_yaml
from trivium.studies.load import check as check_study
from trivium.studies.plan import make_plan

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(trivium [^`\n]+)`")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(path.read_text(encoding="utf-8")) if kind == language]


def shell_lines() -> Iterator[tuple[str, list[str]]]:
    for path in PAGES:
        for code in blocks(path, "sh"):
            for line in code.splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield relative(path), words


def parse(words: list[str]) -> tuple[tuple[str, ...], click.Context]:
    """The names of a command and its context, after click has accepted the options and arguments; nothing is run."""
    command: click.Command = cli.cli
    path: list[str] = []
    rest = words
    while isinstance(command, click.Group) and rest:
        found = command.get_command(click.Context(command), rest[0])
        if found is None and (default := getattr(command, "default", None)):  # `trivium rank STORE` serves
            found, rest = command.get_command(click.Context(command), default), [default, *rest]
        assert found is not None, f"there is no command {' '.join(['trivium', *path, rest[0]])}"
        command, path, rest = found, [*path, rest[0]], rest[1:]
    return tuple(path), command.make_context(" ".join(["trivium", *path]), list(rest))


def check_command(words: list[str]) -> None:
    """``words`` after ``trivium``: the command and its options are there, and the recipe accepts the overrides."""
    words = words[: words.index(">")] if ">" in words else words
    path, context = parse(words)
    parameters = context.params
    if path == ("run",):
        recipe, overrides = cli._split(parameters["arguments"])
    elif path in (("recipes", "show"), ("pretrain",), ("sft",), ("reward",), ("dpo",), ("rl",)):
        recipe, overrides = parameters.get("recipe") or parameters["name"], parameters["overrides"]
    elif path == ("eval",) and (place := Path(parameters["place"])).parts[:1] == ("runs",):
        recipe, overrides = place.name, parameters["overrides"]
    else:
        return
    if recipe.startswith("runs/"):
        recipe = recipe.split("/")[1]
    if recipe in names():
        load(recipe, list(overrides))
    else:
        assert recipe.endswith(".yaml"), f"there is no recipe {recipe}"


@pytest.mark.parametrize(("page", "words"), list(shell_lines()), ids=lambda value: str(value)[:60])
def test_every_command_shown_exists(page: str, words: list[str]) -> None:
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[0] == "trivium":
        if words[1:]:
            check_command(words[1:])
    elif words[0] == "torchrun":
        assert words[1:6] == ["--standalone", "--nproc-per-node", "2", "-m", "trivium"]
        check_command(words[6:])
    else:
        assert words == ["pip", "install", "trivium"]


def test_commands_in_the_text_exist() -> None:
    for path in PAGES:
        for code in INLINE.findall(path.read_text(encoding="utf-8")):
            words = [word for word in shlex.split(code)[1:] if not word.isupper()]
            command: click.Command = cli.cli
            while isinstance(command, click.Group) and words:
                found = command.get_command(click.Context(command), words[0])
                if found is None and (default := getattr(command, "default", None)):
                    found, words = command.get_command(click.Context(command), default), [default, *words]
                assert found is not None, f"{relative(path)}: {code}"
                command, words = found, words[1:]
            options = {name for parameter in command.params for name in parameter.opts}
            assert {word for word in words if word.startswith("-")} <= options, f"{relative(path)}: {code}"


def test_the_readme_begins_with_two_commands_and_names_everything() -> None:
    text = README.read_text(encoding="utf-8")
    assert [line.split("#")[0].strip() for line in blocks(README, "sh")[0].splitlines()] == ["make demo", "make test"]
    assert "](docs/figures/primer.svg)" in text
    for name in cli.cli.list_commands(click.Context(cli.cli)):
        assert f"`trivium {name}" in text
    for name in names():
        # a recipe about one subject stands on that subject's page
        page = {"feedback": "rlaif", "tools": "environments"}.get(name, name)
        assert f"[docs/{page}.md](docs/{page}.md)" in text
        stages = ", ".join(read(name)[0]["stages"])
        assert re.search(rf"\| `{name}` \|.*\| {stages} \|", text), f"the stages of {name} are {stages}"


# ---- links -----------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_links_resolve(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), f"{relative(path)} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{relative(path)} links to {link}, which has no such heading"


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_no_page_names_a_place_of_one_machine(path: Path) -> None:
    found = re.findall(r"(?<![\w.])(?:/work|/tmp|/home|/root|/Users|/opt|/mnt)/\S*", path.read_text(encoding="utf-8"))
    assert not found, f"{relative(path)}: {found}"


def test_nothing_is_left_to_fill_in() -> None:
    """A number that was promised and not measured must not reach a reader."""
    left = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in PAGES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "TODO" in line
    ]
    assert not left, "\n".join(left)


# ---- what the pages tell of the code ---------------------------------------------------------------------------------


def test_every_box_has_its_place_in_architecture() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    package = Path(trivium.__file__).parent
    for path in package.iterdir():
        name = f"{path.name}/" if path.is_dir() else path.name
        if name.startswith(("__", ".")) or name == "py.typed":
            continue
        assert f"`{name}`" in text, f"docs/architecture.md does not name {name}"
    for row in re.findall(r"^\| `[a-z].*\|$", text[: text.index("## Records")], re.MULTILINE):
        box, told = (cell for cell in row.strip("| ").split(" | ", 1))
        folder = package / box.strip("`/") if box.endswith("/`") else package
        for file in re.findall(r"`([a-z0-9_]+\.py)`", told if folder != package else box):
            assert (folder / file).is_file(), f"docs/architecture.md names {file} in {box}"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_stand_as_they_are(preset: str) -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| `{preset}` |"))
    advantage, ratio, mean, kl, more, _ = (cell.strip() for cell in row.strip("|").split("|")[1:])
    choices = PRESETS[preset]
    told = {"group_zscore": "σ", "group_mean": "r − μ", "leave_one_out": "others", "batch_zscore": "over the batch"}
    told["gae"] = "GAE"
    assert told[str(choices["advantage"])] in advantage
    assert ratio.startswith(str(choices["ratio"]))
    if choices["clipping"] in ("symmetric", "higher"):
        low, high = (
            f"{float(choices[key]):g}".replace("0.0003", "3e-4").replace("0.0004", "4e-4")
            for key in ("clip_low", "clip_high")
        )
        assert f"[1 − {low}, 1 + {high}]" in ratio
    elif choices["clipping"] == "capped_weight":
        assert f"1 + {choices['clip_high']:g}" in ratio
    else:
        assert ratio.endswith("none")
    assert {"token": "all tokens", "sequence": "token means", "constant": "L_max"}[str(choices["aggregation"])] in mean
    assert kl == "none" if choices["kl"] == "none" else kl.endswith(f"{choices['kl_coefficient']:g}")
    assert kl.startswith({"reward": "`k1` in the reward", "none": "none"}.get(str(choices["kl"]), f"`{choices['kl']}`"))
    assert (f"`resample` {choices['resample']}" in more) == bool(choices["resample"])
    assert (f"`overlong` {choices['overlong']}" in more) == (choices["overlong"] != "keep")


@pytest.mark.parametrize("kind", KINDS)
def test_every_verifier_is_told_with_its_options(kind: str) -> None:
    text = (ROOT / "docs/verifiers.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {kind}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"docs/verifiers.md has no section {kind}"
    rows = re.findall(r"^\| (`.+?) \| (.+?) \|", section[1], re.MULTILINE)
    defaults = {name: default.strip("`") for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    fields = KINDS[kind].verifier.model_fields
    assert set(defaults) == set(fields)
    for name, field in fields.items():
        shown = (
            "needed"
            if field.is_required()
            else "{}"
            if field.default_factory is not None
            else json.dumps(field.default, default=str).strip('"').replace("null", "none")
        )
        assert defaults[name] == shown, f"{kind}.{name}"


# ---- the examples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in PAGES if ">>> " in path.read_text(encoding="utf-8")], ids=relative)
def test_sessions_in_the_pages_give_what_they_show(path: Path) -> None:
    outcome = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert outcome.attempted and not outcome.failed


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_the_api_in_python_examples_exists(path: Path) -> None:
    """``trivium.x`` is public, and what is imported is there."""
    for code in blocks(path, "python"):
        if ">>> " in code:
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = __import__(str(node.module), fromlist=[alias.name for alias in node.names])
                assert all(hasattr(module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trivium":
                assert node.attr in trivium.__all__
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "trivium.run":
                recipe, overrides = (ast.literal_eval(argument) for argument in node.args)
                load(recipe, overrides)


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_yaml_in_the_pages_is_valid(path: Path) -> None:
    """A whole recipe resolves; a part of one fits where it belongs."""
    for code in blocks(path, "yaml"):
        values = parse_yaml(code, relative(path))
        if "stages" in values:
            resolve({"name": "part", **values}, relative(path))
        elif "arms" in values:
            make_plan(check_study(values, relative(path)), seeds=[0])
        elif "data" in values:
            resolve({"name": "part", "stages": {"pretrain": values}})
        else:
            stage = {"prompts": [{"source": "primer"}], "rewards": {"r": {"kind": "primer"}}, **values}
            resolve(
                {
                    "name": "part",
                    "stages": {"pretrain": {"data": [{"source": "primer"}]}, "rl": {"init": "pretrain", **stage}},
                }
            )


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.slow
def test_the_recipe_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own texts, chats, questions and reward function, as the README has them, made small; and what it leaves."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    for number in range(8):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"Cat {number} sat on mat {number}. All was well.")
    spoken = [[{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": str(n)}] for n in range(30)]
    write_lines(tmp_path / "chats.jsonl", [{"messages": messages} for messages in spoken])
    write_lines(tmp_path / "questions.jsonl", [{"question": f"Say {n}.", "answer": str(n)} for n in range(30, 60)])
    write_lines(tmp_path / "heldout.jsonl", [{"question": f"Say {n}.", "answer": str(n)} for n in range(60, 70)])
    (tmp_path / "rewards.py").write_text(next(code for code in blocks(README, "python") if "def brevity" in code))
    (tmp_path / "my-recipe.yaml").write_text(blocks(README, "yaml")[0], encoding="utf-8")
    small = {"pretrain.steps": 4, "pretrain.batch_tokens": 512, "pretrain.model.hidden_size": 32, "sft.steps": 3}
    small |= {"rl.steps": 2, "rl.prompts_per_step": 2, "rl.group_size": 2}
    result = trivium.run("my-recipe.yaml", small, quiet=True)
    assert result.directory == Path("runs/mine") and result.report is not None
    assert set(result.summary["stages"]["rl"]["train"]) >= {"reward/right", "reward/short"}
    architecture = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    task = json.loads((result.directory / "rl/evaluation.json").read_text())["tasks"]["held_out"]
    lineage = json.loads((result.directory / "lineage.json").read_text())
    keys = {*task, *task["results"][0], *lineage, *lineage["artifacts"]["rl"], *result.summary}
    keys |= {*result.summary["stages"]["rl"], *result.summary["stages"]["sft"], *result.summary["stages"]["pretrain"]}
    for stage in ("pretrain", "sft", "rl"):
        for line in (result.directory / stage / "metrics.jsonl").read_text().splitlines():
            values = json.loads(line)
            keys |= {*values, *(f"timing.{name}" for name in values["timing"])}
    missing = [key for key in sorted(keys) if not re.search(rf"[`\"]{re.escape(key)}[`\"]", architecture)]
    assert missing == ["reward/right", "reward/short"], "docs/architecture.md does not name them all"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("torchrun", path=str(Path(sys.executable).parent)) is None, reason="no torchrun here")
def test_torchrun_as_shown(tmp_path: Path) -> None:
    words = next(words for _, words in shell_lines() if words[0] == "torchrun")
    small = "primer.documents=100 primer.demonstrations=30 primer.problems=400 pretrain.model.hidden_size=32 "
    small += (
        "pretrain.steps=2 pretrain.batch_tokens=1024 sft.steps=2 sft.batch_size=4 rl.steps=1 rl.prompts_per_step=2 "
    )
    small += "rl.group_size=2 problems.limit=4 problems.samples=0 taste.limit=4 rank.tasks=200 reward.steps=2 "
    small += "reward.samples=2 reward.prompt_limit=4 reward_held_out.steps=2 ppo.steps=1 ppo.prompts_per_step=4 "
    small += "ppo.validation.0.limit=4 primer.lessons=40 judge.steps=2 audit.pairs=10 crowd.steps=2 majority.steps=1 "
    small += "rlaif.steps=1 rlaif.prompts_per_step=2 rlaif.validation.0.limit=4 majority.validation.0.limit=4 "
    small += "rlaif.rewards.principled.options.trust=true"  # two steps make no judge
    command = [str(Path(sys.executable).parent / "torchrun"), *words[1:], *small.split()]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "runs/two/report.html").is_file()
