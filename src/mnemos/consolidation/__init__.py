"""From a fast memory into a slow network, and into a large one without forgetting."""

from mnemos.consolidation.analytic import AnalyticReadout, RandomFeatures
from mnemos.consolidation.autoencoder import VariationalAutoencoder
from mnemos.consolidation.complementary import ComplementarySystems
from mnemos.consolidation.consolidator import Consolidator
from mnemos.consolidation.distillation import LwF
from mnemos.consolidation.episodes import Episodes
from mnemos.consolidation.ewc import EWC
from mnemos.consolidation.exemplars import ICaRL, NearestMean, herding
from mnemos.consolidation.feedback import FeedbackNetwork, FeedbackReplay
from mnemos.consolidation.generative_classifier import GenerativeClassifier
from mnemos.consolidation.generative_model import GenerativeModel
from mnemos.consolidation.generative_replay import GenerativeReplay
from mnemos.consolidation.integration import chained
from mnemos.consolidation.letting_go import let_go
from mnemos.consolidation.memory_aware_synapses import MAS
from mnemos.consolidation.metrics import average_accuracy, backward_transfer, forgetting, forward_transfer
from mnemos.consolidation.priorities import Prioritised
from mnemos.consolidation.rehearsal import AGEM, DarkReplay, PrioritisedReplay, Replay
from mnemos.consolidation.sleep import Phase, Sleep
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
    "AnalyticReadout",
    "Background",
    "ComplementarySystems",
    "Consolidator",
    "DarkReplay",
    "Edit",
    "Episodes",
    "FeedbackNetwork",
    "FeedbackReplay",
    "GenerativeClassifier",
    "GenerativeModel",
    "GenerativeReplay",
    "ICaRL",
    "LwF",
    "NearestMean",
    "Phase",
    "Prioritised",
    "PrioritisedReplay",
    "RandomFeatures",
    "Replay",
    "Sleep",
    "SparseFinetuning",
    "Term",
    "VariationalAutoencoder",
    "average_accuracy",
    "background",
    "backward_transfer",
    "chained",
    "forgetting",
    "forward_transfer",
    "herding",
    "let_go",
    "load_edit",
    "save_edit",
    "specificity",
]
