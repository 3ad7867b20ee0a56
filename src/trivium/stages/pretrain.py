"""Pre-training: guess the next token of a corpus."""

from itertools import islice
from typing import Any

import torch

from trivium.config import PretrainConfig, SourceConfig
from trivium.data import sources
from trivium.data.corpus import TokenCorpus, build_corpora
from trivium.data.packing import make_batches, validation_sequences
from trivium.evaluation.metrics import bits_per_byte
from trivium.model.decoder import Decoder
from trivium.model.sizes import derive
from trivium.objectives.imitation import imitation_loss
from trivium.stages.context import StageContext, load_start, save_result
from trivium.streams import stream_key
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.device import choose_device
from trivium.training.loop import Loop
from trivium.training.scoring import log_probs_of, total_nats
from trivium.training.shares import own_micro_batches


def main(context: StageContext) -> dict[str, Any]:
    """Run the stage; resumes from STAGE/checkpoints. Returns its summary (see ``trivium.run``)."""
    config: PretrainConfig = context.config
    recipe = context.recipe
    device = choose_device(recipe)
    decoder, tokenizer = start(context, device)
    length = decoder.config.context_length
    corpora = tokenised(context, config.data, tokenizer, "corpus")
    batches = make_batches(
        config.packing,
        corpora,
        [source.weight for source in config.data],
        seed=recipe.seed,
        name=context.name,
        batch_tokens=config.batch_tokens,
        context_length=length,
    )
    held_out, byte_count = validation_sequences(
        config.packing, tokenised(context, config.validation, tokenizer, "validation"), length
    )
    held_out_tokens = sum(sequence.loss_tokens for sequence in held_out)

    def validate() -> dict[str, float]:
        nats = total_nats(decoder, held_out, config.micro_batch_tokens, device)
        return {"loss": nats / held_out_tokens, "bits_per_byte": bits_per_byte(nats, byte_count)}

    loop = Loop(context.directory, decoder, config, progress=context.progress, validate=validate if held_out else None)
    for step in loop.steps():
        batch = batches.batch(step)
        total = sum(sequence.loss_tokens for sequence in batch)
        loop.update(
            own_micro_batches([len(sequence.tokens) for sequence in batch], config.micro_batch_tokens),
            lambda part: imitation_loss(log_probs_of(decoder, [batch[item] for item in part], device), total),
            tokens=sum(len(sequence.tokens) for sequence in batch),
        )
    save_result(context, decoder, tokenizer)
    return loop.summary("bits_per_byte" if held_out else "loss", {"corpus_tokens": sum(map(len, corpora))})


def start(context: StageContext, device: torch.device) -> tuple[Decoder, Tokenizer]:
    """The decoder to train and its tokenizer: loaded from ``init``, or trained and drawn afresh."""
    config: PretrainConfig = context.config
    if config.init is not None:
        return load_start(context, config.init, device)
    tokenizer = fresh_tokenizer(context)
    shape, description = derive(config.model, tokenizer.vocabulary_size)
    context.progress.note(f"{context.name}: {description}")
    decoder = Decoder(shape)
    key = stream_key(context.recipe.seed, f"{context.name}/weights")
    decoder.initialise(torch.Generator().manual_seed(key), config.model.init_std)
    return decoder.to(device), tokenizer


def fresh_tokenizer(context: StageContext) -> Tokenizer:
    """The tokenizer of ``tokenizer.path``, or one trained on the corpora; kept in STAGE/tokenizer for a resume."""
    config: PretrainConfig = context.config
    folder = context.directory / "tokenizer"
    if config.tokenizer.path is not None:
        return Tokenizer.load(config.tokenizer.path)
    if distributed.is_main() and not (folder / "tokenizer_config.json").exists():
        documents = sources.documents(config.data, context.recipe)
        texts = (document.text for document in islice(documents, config.tokenizer.train_documents))
        if config.tokenizer.kind == "character":
            made = Tokenizer.train_character(texts)
        else:
            made = Tokenizer.train_bpe(texts, config.tokenizer.vocabulary_size)
        made.save(folder)
    distributed.barrier()
    return Tokenizer.load(folder)


def tokenised(context: StageContext, data: list[SourceConfig], tokenizer: Tokenizer, folder: str) -> list[TokenCorpus]:
    """Corpora as token ids on disk in STAGE/``folder``, written once, by the main rank."""
    config: PretrainConfig = context.config
    limit = config.limit_tokens if folder == "corpus" else None
    if not distributed.is_main():
        distributed.barrier()
    corpora = build_corpora(data, context.recipe, tokenizer, context.directory / folder, limit)
    if distributed.is_main():
        distributed.barrier()
    return corpora
