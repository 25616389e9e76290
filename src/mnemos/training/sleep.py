"""Sleep of a language model: what its memory holds goes into its weights, interleaved with older text."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mnemos.consolidation.term import evaluated
from mnemos.models.checkpoint import LanguageModel, save_model
from mnemos.models.nearest_neighbour import check_model
from mnemos.models.remembered import remembered
from mnemos.models.transformer import Transformer
from mnemos.progress import Advance
from mnemos.stores.base import DEFAULT_NAMESPACE, Store
from mnemos.tasks.text import Document
from mnemos.training.language import Samples, cross_entropy, encode_documents, identity
from mnemos.training.loop import Learner, TrainingConfig, run

if TYPE_CHECKING:
    import peft


JUDGED = 8  # batches of each kind, never learned from, by which a night is judged


class Costs(NamedTuple):
    """What a token costs, in nats, before a night and after it."""

    before: float
    after: float


class Slept(NamedTuple):
    """The new model, and what the night did to what is remembered and to what is old."""

    model: LanguageModel
    remembered: Costs
    old: Costs


def sleep(
    language_model: LanguageModel,
    store: Store,
    old: Sequence[Document],
    folder: str | Path,
    config: TrainingConfig,
    *,
    rank: int | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    resume: bool = True,
    progress: bool = True,
    advance: Advance | None = None,
) -> Slept:
    """Replays a store into the weights of the model that read it, and saves the new model to a folder.

    Every batch is half of what is remembered and half of old text, so that the one is learned and the other
    is not forgotten (McClelland, McNaughton & O'Reilly 1995). What is replayed comes from the records
    alone. The given model is changed in place; its memory's keys are not those of the new model, so a store
    that is to be kept must be read again. A night that was interrupted goes on when it is called again in
    the same way.

    Args:
        old: text of the kind that the model knew before.
        folder: where the new model is written; not the old one's, to which the store belongs.
        config: how long, and how fast; `batch_size` is halved, rounded up, for each kind.
        rank: of LoRA (Hu et al. 2022): only matrices of that rank beside every linear map learn, and are
            added to it in the end; None: all weights learn.
        resume, progress, advance: as in `train_language_model`.

    Raises:
        ValueError: nothing is remembered, no old text, or a rank below 1.
        OtherModelError: the store is another model's.
        KeyboardInterrupt: Ctrl-C, after everything was saved.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be at least 1, or None, not {rank}")
    check_model(language_model, store)
    model, tokenizer = language_model.model, language_model.tokenizer
    texts = [tokens for _, tokens in remembered(store, namespace=namespace)]
    if not texts:
        raise ValueError(f"the store holds no text in the namespace {namespace!r}: read some first")
    kinds = [
        Samples(part, model, config, rows=-(-config.batch_size // 2), salt=number)
        for number, part in enumerate((texts, encode_documents(tokenizer, old)))
    ]
    before = [_cost(model, kind) for kind in kinds]
    torch.manual_seed(config.seed)  # of the adapters
    adapted = _with_adapters(model.train(), rank) if rank else None

    def batch(step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = zip(*(kind.batch(step) for kind in kinds), strict=True)
        return torch.cat(inputs), torch.cat(targets)

    facts = {"rank": rank, **identity(model, [text for kind in kinds for text in kind.texts])}
    learner = Learner(model.train() if adapted is None else adapted, cross_entropy, config, facts)
    interrupted = run(learner, batch, Path(folder), resume=resume, progress=progress, advance=advance)
    if adapted is not None:
        if interrupted:  # what was learned so far is in the checkpoint; merging would spoil the model for it
            raise KeyboardInterrupt
        model = adapted.merge_and_unload()
    whole = save_model(folder, model.requires_grad_(True).cpu().eval(), tokenizer)
    if interrupted:
        raise KeyboardInterrupt
    return Slept(whole, *(Costs(one, _cost(model, kind)) for one, kind in zip(before, kinds, strict=True)))


@torch.no_grad()
def _cost(model: Transformer, kind: Samples) -> float:
    """The mean over batches that are drawn to judge by."""
    with evaluated(model):
        costs = [cross_entropy(model, kind.batch(-1 - number)) for number in range(JUDGED)]
    return torch.stack(costs).mean().item()


def _with_adapters(model: Transformer, rank: int) -> "peft.PeftModel":
    """The model, in which matrices of that rank beside every linear map learn and nothing else."""
    try:
        import peft
    except ImportError as error:
        raise ImportError('learning by LoRA needs: pip install "mnemos[hf]"') from error
    maps = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=maps))
