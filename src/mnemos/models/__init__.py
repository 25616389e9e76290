"""Memories inside networks."""

from mnemos.models.checkpoint import LanguageModel, language_model, load_model, save_model
from mnemos.models.folder import ModelError
from mnemos.models.generation import generate
from mnemos.models.hopfield import HopfieldAssociation, HopfieldLookup, HopfieldPooling
from mnemos.models.hybrid import hybrid
from mnemos.models.mixer import Mixer, MixerState
from mnemos.models.mixture import (
    Evidence,
    Mixture,
    concatenate_evidence,
    fit_mixture,
    mixed_nats,
    perplexity,
)
from mnemos.models.nearest_neighbour import (
    ChangedDocumentError,
    OtherModelError,
    Prediction,
    Progress,
    check_model,
    excerpt,
    memorize,
    predict,
    retrieve,
)
from mnemos.models.reading import Point, Totals, read_all, totals
from mnemos.models.recollection import Answer, Correction, Recollection, correct, recall
from mnemos.models.transformer import Features, Transformer
from mnemos.models.tuning import default_mixture, load_mixture, save_mixture, tune

__all__ = [
    "Answer",
    "ChangedDocumentError",
    "Correction",
    "Evidence",
    "Features",
    "HopfieldAssociation",
    "HopfieldLookup",
    "HopfieldPooling",
    "LanguageModel",
    "Mixer",
    "MixerState",
    "Mixture",
    "ModelError",
    "OtherModelError",
    "Point",
    "Prediction",
    "Progress",
    "Recollection",
    "Totals",
    "Transformer",
    "check_model",
    "concatenate_evidence",
    "correct",
    "default_mixture",
    "excerpt",
    "fit_mixture",
    "generate",
    "hybrid",
    "language_model",
    "load_mixture",
    "load_model",
    "memorize",
    "mixed_nats",
    "perplexity",
    "predict",
    "read_all",
    "recall",
    "retrieve",
    "save_mixture",
    "save_model",
    "totals",
    "tune",
]
