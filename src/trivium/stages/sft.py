"""Supervised fine-tuning: imitate the assistant's side of demonstrations."""

from trivium.config import SFTConfig
from trivium.data import sources
from trivium.data.mixture import batch_indices
from trivium.data.records import TokenSequence
from trivium.errors import UserError
from trivium.objectives.imitation import imitation_loss
from trivium.stages.context import StageContext, load_start, save_result
from trivium.text.chat import training_sequence
from trivium.text.tokenizer import Tokenizer
from trivium.training.device import choose_device
from trivium.training.loop import Loop
from trivium.training.scoring import log_probs_of, total_nats
from trivium.training.shares import own_micro_batches


def main(context: StageContext) -> dict[str, object]:
    """Run the stage; resumes from STAGE/checkpoints. Returns its summary (see ``trivium.run``)."""
    config: SFTConfig = context.config
    device = choose_device(context.recipe)
    decoder, tokenizer = load_start(context, config.init, device)
    limit = decoder.config.context_length
    placed = [part.model_copy(update={"source": context.place(part.source)}) for part in config.data]
    data, dropped = _tokenise(sources.conversations(placed, context.recipe), tokenizer, limit, context.name)
    held_out, _ = _tokenise(sources.conversations(config.validation, context.recipe), tokenizer, limit, context.name)
    validation = [sequence for part in held_out for sequence in part]
    validation_tokens = sum(sequence.loss_tokens for sequence in validation)

    def validate() -> dict[str, float]:
        nats = total_nats(decoder, validation, config.micro_batch_tokens, device)
        return {"loss": nats / max(validation_tokens, 1)}

    loop = Loop(
        context.directory, decoder, config, progress=context.progress, validate=validate if validation else None
    )
    sizes, weights = [len(part) for part in data], [source.weight for source in config.data]
    for step in loop.steps():
        pairs = batch_indices(context.recipe.seed, context.name, step, config.batch_size, sizes, weights)
        batch = [data[source][example] for source, example in pairs]
        total = sum(sequence.loss_tokens for sequence in batch)
        shares = own_micro_batches([len(sequence.tokens) for sequence in batch], config.micro_batch_tokens)
        loop.update(
            shares,
            lambda part: imitation_loss(log_probs_of(decoder, [batch[item] for item in part], device), total),
            tokens=sum(len(sequence.tokens) for sequence in batch),
        )
    save_result(context, decoder, tokenizer)
    return loop.summary("loss", {"conversations": sum(sizes), "too_long": dropped})


def _tokenise(
    conversations: list[list[sources.Conversation]], tokenizer: Tokenizer, limit: int, stage: str
) -> tuple[list[list[TokenSequence]], int]:
    """Token sequences a source, without conversations longer than the context; how many those were."""
    kept, dropped = [], 0
    for part in conversations:
        sequences = [training_sequence(tokenizer, conversation) for conversation in part]
        short = [sequence for sequence in sequences if len(sequence.tokens) <= limit]
        if sequences and not short:
            raise UserError(
                f"{stage}: every conversation is longer than the model's context of {limit} tokens; shorten them or "
                "pre-train with a larger model.context_length"
            )
        dropped += len(sequences) - len(short)
        kept.append(short)
    return kept, dropped
