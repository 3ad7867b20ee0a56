"""``trivium generate`` and ``trivium chat``: the engine at the terminal."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import torch

from trivium.data.records import Message
from trivium.generation.engine import Engine
from trivium.generation.sampling import SamplingSettings
from trivium.generation.scheduler import Completion, Request
from trivium.model.huggingface import load_language_model
from trivium.progress import visible
from trivium.text.chat import prompt_ids
from trivium.text.tokenizer import Tokenizer


def generate(
    model: str | Path,
    prompts: Sequence[str],
    *,
    samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    max_new_tokens: int = 128,
    stop: Sequence[str] = (),
    seed: int = 0,
    raw: bool = False,
) -> list[list[str]]:
    """Print and return ``samples`` responses to each prompt; ``raw`` continues the text without the chat template."""
    tokenizer, engine = _open(model)
    settings = SamplingSettings(
        temperature, top_k, top_p, max_new_tokens, tuple(_stop_ids(tokenizer, raw)), tuple(stop)
    )
    requests = []
    for number, prompt in enumerate(prompts):
        if raw:
            tokens = [tokenizer.document_start_id, *tokenizer.encode(prompt)]
        else:
            tokens = prompt_ids(tokenizer, [Message("user", prompt)])
        requests.append(Request(tuple(tokens), f"generate/{number}", samples))
    completions = engine.generate(requests, settings, seed)
    texts = [[tokenizer.decode(completion.tokens) for completion in group] for group in completions]
    for prompt, group, responses in zip(prompts, completions, texts, strict=True):
        click.secho(visible(prompt), bold=True)
        for completion, response in zip(group, responses, strict=True):
            cut = "" if completion.finish_reason == "stop" else click.style(" (cut at the length limit)", dim=True)
            click.echo(visible(response) + cut)
    return texts


def chat(
    model: str | Path, *, temperature: float = 0.7, max_new_tokens: int = 256, system: str | None = None, seed: int = 0
) -> None:
    """Talk with a model; what was said goes before the next turn, the oldest dropped when the context is full."""
    tokenizer, engine = _open(model)
    settings = SamplingSettings(
        temperature=temperature, max_new_tokens=max_new_tokens, stop_token_ids=tuple(tokenizer.stop_token_ids)
    )
    opening = [Message("system", system)] if system else []
    turns: list[Message] = []
    click.echo("An empty line or Ctrl-D ends the conversation.")
    while asked := _ask():
        turns.append(Message("user", asked))
        tokens = prompt_ids(tokenizer, opening + turns)
        while len(tokens) >= engine.decoder.config.context_length and len(turns) > 2:
            turns = turns[2:]
            tokens = prompt_ids(tokenizer, opening + turns)
        request = Request(tuple(tokens), f"chat/{len(turns)}")
        completion = engine.generate([request], settings, seed, on_token=_printer(tokenizer))[0][0]
        click.echo()
        turns.append(Message("assistant", tokenizer.decode(completion.tokens)))


def _open(model: str | Path) -> tuple[Tokenizer, Engine]:
    tokenizer = Tokenizer.load(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return tokenizer, Engine(load_language_model(model, device=device).eval(), decode=tokenizer.decode)


def _stop_ids(tokenizer: Tokenizer, raw: bool) -> list[int]:
    return [*tokenizer.stop_token_ids, tokenizer.document_separator_id] if raw else list(tokenizer.stop_token_ids)


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _printer(tokenizer: Tokenizer) -> Callable[[Request, Completion, int], None]:
    """Prints what each token adds to the text; a character that is not whole yet waits for its other bytes."""
    printed = ""

    def show(_request: Request, completion: Completion, _token: int) -> None:
        nonlocal printed
        text = tokenizer.decode(completion.tokens)
        if text.startswith(printed) and not text.endswith("\ufffd"):
            click.echo(visible(text[len(printed) :]), nl=False)
            printed = text

    return show
