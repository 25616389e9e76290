"""A network that keeps learning, in a trainer of Lightning."""

from collections.abc import Callable, Mapping
from typing import Any, final

from torch import Tensor

from mnemos.consolidation import Consolidator

try:
    import lightning.pytorch as lightning
except ImportError as error:
    raise ImportError('training needs: pip install "mnemos[train]"') from error

Pair = Callable[[Any], tuple[Tensor, Tensor]]


@final
class Consolidation(lightning.Callback):
    """Tells a `Consolidator` of every step, every batch and every end of a `fit`, which is a context.

        trainer = lightning.Trainer(callbacks=[Consolidation(consolidator)])
        for context in contexts:
            trainer.fit(module, context)  # a new Trainer for each: one that has come to its end does nothing

    Penalties, synaptic intelligence and A-GEM need no more than that. What replays has a loss of its own,
    which the module adds: `return consolidator.loss(new, inputs)` in its `training_step`. Gradients are
    seen before Lightning clips them, in the precision of its automatic optimisation, and must not be
    scaled.

    The consolidator's state is a part of the trainer's checkpoints. Terms with a fast store keep their
    records there, and what the checkpoint holds is of the moment at which it was written.

    Args:
        pair: of a batch, its inputs and targets.
        ends: whether the end of a fit is the end of a context.
    """

    def __init__(
        self,
        consolidator: Consolidator,
        pair: Pair = lambda batch: (batch[0], batch[1]),
        *,
        ends: bool = True,
    ) -> None:
        self.consolidator, self.pair, self.ends = consolidator, pair, ends
        self._stepping = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.consolidator.attach(None)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.consolidator.before_step()
        self._stepping = True

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._stepping:  # where gradients are accumulated, not every batch ends in a step
            self.consolidator.after_step()
            self._stepping = False
        self.consolidator.observe(*self.pair(batch))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.ends:
            device = pl_module.device
            batches = (self.pair(batch) for batch in trainer.train_dataloader)
            self.consolidator.end_context(
                [(inputs.to(device), targets.to(device)) for inputs, targets in batches]
            )
        self.consolidator.detach()

    def state_dict(self) -> dict[str, Any]:
        return self.consolidator.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.consolidator.load_state_dict(state_dict)
