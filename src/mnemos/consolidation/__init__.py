"""From a fast memory into a slow network, and into a large one without forgetting."""

from mnemos.consolidation.metrics import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from mnemos.consolidation.sparse_finetuning import (
    Background,
    Edit,
    SparseFinetuning,
    background,
    load_edit,
    save_edit,
    specificity,
)

__all__ = [
    "Background",
    "Edit",
    "SparseFinetuning",
    "average_accuracy",
    "background",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
    "load_edit",
    "save_edit",
    "specificity",
]
