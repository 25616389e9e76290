"""From a fast memory into a slow network, and into a large one without forgetting."""

from mnemos.consolidation.consolidator import Consolidator
from mnemos.consolidation.distillation import LwF
from mnemos.consolidation.episodes import Episodes
from mnemos.consolidation.ewc import EWC
from mnemos.consolidation.memory_aware_synapses import MAS
from mnemos.consolidation.metrics import average_accuracy, backward_transfer, forgetting, forward_transfer
from mnemos.consolidation.rehearsal import AGEM, DarkReplay, Replay
from mnemos.consolidation.sparse_finetuning import (
    Background,
    Edit,
    SparseFinetuning,
    background,
    load_edit,
    save_edit,
    specificity,
)
from mnemos.consolidation.synaptic_intelligence import SI
from mnemos.consolidation.term import Term

__all__ = [
    "AGEM",
    "EWC",
    "MAS",
    "SI",
    "Background",
    "Consolidator",
    "DarkReplay",
    "Edit",
    "Episodes",
    "LwF",
    "Replay",
    "SparseFinetuning",
    "Term",
    "average_accuracy",
    "background",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
    "load_edit",
    "save_edit",
    "specificity",
]
