"""The commands. Each hands its arguments to a function of the package, which is imported when the command runs."""

import importlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from trivium.errors import UserError

Arguments = tuple[str, ...]
Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class _Command(click.Command):
    """A command whose help ends with an example, word for word."""

    def __init__(self, *arguments: Any, example: str = "", **options: Any):
        super().__init__(*arguments, **options)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class _Group(click.Group):
    """The commands of this file, and groups of others that are imported when they are asked for."""

    elsewhere = {  # noqa: RUF012 - a constant of the class
        "judge": ("trivium.feedback.judges.commands", "judge", "Have a model judge answers; measure a judge."),
        "rank": ("trivium.web.commands", "rank", "Let people rank answers in a web page."),
        "rankings": ("trivium.feedback.rankings.commands", "rankings", "Import, export and compare rankings."),
        "study": ("trivium.studies.commands", "study", "Compare ways to teach a model, over several seeds."),
        "verifiers": ("trivium.feedback.verifiers.commands", "verifiers", "List verifiers, try one, attack one."),
    }

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), *self.elsewhere])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.elsewhere:
            return super().get_command(context, name)
        module, attribute, _ = self.elsewhere[name]
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The list, without importing the groups that live elsewhere."""
        lines = []
        for name in self.list_commands(context):
            own = self.commands.get(name)
            lines.append((name, own.get_short_help_str(80) if own else self.elsewhere[name][2]))
        with formatter.section("Commands"):
            formatter.write_dl(lines)


def _command(group: click.Group, name: str, example: str, **options: Any) -> Decorator:
    return group.command(name, cls=_Command, example=example, **options)


_directory = click.option(
    "-d", "--directory", type=click.Path(path_type=Path), help="Where the run lies; default runs/NAME."
)
_quiet = click.option("-q", "--quiet", is_flag=True, help="Print only notes and one line a stage.")
_overrides = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="trivium", message="trivium %(version)s")
def cli() -> None:
    """Take a language model from raw text through fine-tuning and reinforcement learning to a report.

    `trivium run` does all of it with the embedded recipe; `trivium recipes` lists the others.
    """


@_command(cli, "run", "trivium run primer rl.steps=50 seed=1 -d runs/short")
@click.argument("arguments", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...")
@_directory
@click.option("--fresh", is_flag=True, help="Move a run that lies there aside and begin anew.")
@_quiet
def run_command(arguments: Arguments, directory: Path | None, fresh: bool, quiet: bool) -> None:
    """Run a recipe: all stages, evaluation and report.

    RECIPE is a shipped recipe (default: primer), a YAML file or a run directory. Given again, the command skips what
    is finished and unchanged, and resumes what was cut.
    """
    from trivium.run import run

    recipe, overrides = _split(arguments)
    result = run(recipe, overrides, directory, fresh=fresh, quiet=quiet)
    _say_result(result)


def _stage_command(kind: str, name: str, about: str, example: str) -> None:
    @_command(cli, name, example, help=f"{about}\n\nRuns this stage of RECIPE alone, from the finished ones before it.")
    @click.argument("recipe")
    @_overrides
    @_directory
    @click.option("--stage", help=f"Which one, where a recipe has several of kind {kind}; default: all of them.")
    @_quiet
    def command(recipe: str, overrides: Arguments, directory: Path | None, stage: str | None, quiet: bool) -> None:
        from trivium.run import run, stages_of_kind

        stages = [stage] if stage else stages_of_kind(recipe, kind, overrides)
        _say_result(run(recipe, overrides, directory, stages=stages, quiet=quiet))


_stage_command("pretrain", "pretrain", "Pre-train on a corpus.", "trivium pretrain shakespeare paths.text=input.txt")
_stage_command("sft", "sft", "Fine-tune on demonstrations.", "trivium sft primer sft.optimizer.lr=5e-4")
_stage_command(
    "reward", "reward", "Train a reward model on rankings.", "trivium reward primer reward.loss=plackett_luce"
)
_stage_command(
    "dpo",
    "dpo",
    "Learn from preferences directly: rankings, labelled answers, or scores of the policy's own answers.",
    "trivium dpo my-recipe.yaml dpo.beta=0.2",
)
_stage_command(
    "rl",
    "rl",
    "Reinforcement learning by verifiers, a reward model, a judge or a vote.",
    "trivium rl primer rl.preset=dr_grpo",
)


_EVAL_EXAMPLE = """\
trivium eval runs/primer problems.samples=16
trivium eval runs/primer --tasks harder.yaml --tasks humaneval=HumanEval.jsonl --limit 50
trivium eval my-model --tasks lm_eval:my_task --include-path my-tasks"""


@_command(cli, "eval", _EVAL_EXAMPLE)
@click.argument("place", metavar="RUN_OR_MODEL")
@_overrides
@click.option("-r", "--recipe", help="Whose tasks a model directory is evaluated on.")
@click.option(
    "-t",
    "--tasks",
    multiple=True,
    metavar="TASKS",
    help="Other tasks: a YAML file, a task's name, humaneval=FILE, mbpp=FILE, ifeval=FILE or lm_eval:TASK; may be "
    "given several times.",
)
@click.option("--limit", type=click.IntRange(min=1), help="With --tasks: most prompts of each task.")
@click.option("--include-path", type=click.Path(path_type=Path), help="Of lm_eval: a folder with YAML files of tasks.")
@click.option("--through", type=click.Choice(["trivium", "transformers"]), help="Of lm_eval: what computes.")
@click.option("--chat", is_flag=True, help="Of lm_eval: apply the model's chat template.")
@click.option("--fewshot", type=click.IntRange(min=0), help="Of lm_eval: solved examples shown; default: the task's.")
@click.option("--stage", "stages", multiple=True, help="Only this stage of a run; may be given several times.")
@click.option("-d", "--directory", type=click.Path(path_type=Path), help="Where a model's results go.")
@_quiet
def eval_command(
    place: str,
    overrides: Arguments,
    recipe: str | None,
    tasks: Arguments,
    stages: Arguments,
    directory: Path | None,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Evaluate the models of a run again, or a model directory on a recipe's tasks; or either on other tasks.

    Prints JSON. With --tasks the run stays as it is; results go to evaluations/ in it.
    """
    from trivium.run import evaluate

    given = {name: value for name, value in chosen.items() if value is not None and value is not False}
    options = None
    if given or tasks:
        from trivium.evaluation.apart import Options

        options = Options(**given)
    numbers = evaluate(
        place, overrides, recipe, directory, stages=stages or None, tasks=tasks, options=options, quiet=quiet
    )
    _say(json.dumps(numbers, indent=2))


@_command(cli, "generate", 'trivium generate runs/primer/rl/model --prompt "12 + 39 = ?" --temperature 0')
@click.argument("model")
@click.option(
    "-p", "--prompt", "prompts", multiple=True, required=True, help="What the user says; may be given several times."
)
@click.option("-n", "--samples", default=1, type=click.IntRange(min=1), show_default=True, help="Responses a prompt.")
@click.option(
    "-t",
    "--temperature",
    default=1.0,
    type=click.FloatRange(min=0),
    show_default=True,
    help="0: the likeliest token always.",
)
@click.option(
    "--top-k", default=0, type=click.IntRange(min=0), show_default=True, help="Keep the k likeliest tokens; 0: all."
)
@click.option(
    "--top-p",
    default=1.0,
    type=click.FloatRange(min=0, max=1, min_open=True),
    show_default=True,
    help="Keep the smallest set of this probability.",
)
@click.option("--max-new-tokens", default=128, type=click.IntRange(min=1), show_default=True, help="Longest response.")
@click.option("--stop", multiple=True, help="A string that ends a response; may be given several times.")
@click.option("--seed", default=0, show_default=True, help="Equal seeds give equal responses.")
@click.option("--raw", is_flag=True, help="Continue the text as it is, without the chat template.")
def generate_command(model: str, prompts: Arguments, **options: Any) -> None:
    """Let a model respond to prompts."""
    from trivium.generation.console import generate

    generate(model, list(prompts), **{**options, "stop": list(options["stop"])})


@_command(cli, "chat", "trivium chat runs/primer/rl/model")
@click.argument("model")
@click.option(
    "-t",
    "--temperature",
    default=0.7,
    type=click.FloatRange(min=0),
    show_default=True,
    help="0: the likeliest token always.",
)
@click.option("--max-new-tokens", default=256, type=click.IntRange(min=1), show_default=True, help="Longest response.")
@click.option("--system", help="What the system message says.")
@click.option("--seed", default=0, show_default=True, help="Equal seeds give equal responses.")
def chat_command(model: str, **options: Any) -> None:
    """Talk with a model on the terminal; an empty line or Ctrl-D ends it."""
    from trivium.generation.console import chat

    chat(model, **options)


@_command(cli, "report", "trivium report runs/primer")
@click.argument("run", type=click.Path(path_type=Path))
def report_command(run: Path) -> None:
    """Build report.html of a run directory anew."""
    from trivium.report import build

    click.echo(build(run))


@cli.group("recipes", invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def recipes_group(context: click.Context) -> None:
    """List the shipped recipes, or show one with every key.

    Example: trivium recipes show primer
    """
    if context.invoked_subcommand is None:
        context.invoke(recipes_list)


@_command(recipes_group, "list", "trivium recipes list")
def recipes_list() -> None:
    """The shipped recipes, a line each."""
    from trivium.recipe import names, read

    for name in names():
        click.echo(f"{name:<16}{read(name)[0].get('description', '')}")


@_command(recipes_group, "show", "trivium recipes show primer rl.preset=dapo > my-recipe.yaml")
@click.argument("name")
@_overrides
def recipes_show(name: str, overrides: Arguments) -> None:
    """Every key of a recipe: its value, what it means, its choices and its default. The output is a recipe itself."""
    from trivium.recipe import show

    click.echo(show(name, overrides), nl=False)


def _split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The recipe, which is the first argument if it has no ``=``, and the overrides."""
    if arguments and "=" not in arguments[0]:
        return arguments[0], list(arguments[1:])
    return "primer", list(arguments)


def _say_result(result: Any) -> None:
    if result.report is not None:
        _say(f"report: {result.report}")


def _say(text: str) -> None:
    """Print ``text``, under ``torchrun`` once: all ranks come to the same result, and the first one tells it."""
    if os.environ.get("RANK", "0") == "0":
        click.echo(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Exit code 0; 1 with one sentence for a user's mistake; 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        cli.main(args=given, prog_name="trivium", standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "trivium"
        _fail(f"{error.format_message().rstrip('.')}; `{where} --help` shows how it is used")
    except click.ClickException as error:
        _fail(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        resume = f"; `{shlex.join(['trivium', *_resuming(given)])}` resumes" if given[:1] in _RESUMABLE else ""
        click.echo(f"\nstopped{resume}", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        sys.exit(1)


_RESUMABLE = (["run"], ["pretrain"], ["sft"], ["reward"], ["dpo"], ["rl"], ["judge"], ["study"])


def _resuming(given: list[str]) -> list[str]:
    """The same command without ``--fresh``, which would begin anew."""
    return [argument for argument in given if argument != "--fresh"]


def _fail(sentence: str) -> None:
    click.echo(f"error: {sentence}", err=True)
    sys.exit(1)
