"""Memories inside networks."""

from mnemos.models.checkpoint import LanguageModel, ModelError, language_model, load_model, save_model
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
from mnemos.models.transformer import Features, RotaryAttention, Transformer, small_transformer

__all__ = [
    "ChangedDocumentError",
    "Evidence",
    "Features",
    "LanguageModel",
    "Mixture",
    "ModelError",
    "OtherModelError",
    "Prediction",
    "Progress",
    "RotaryAttention",
    "Transformer",
    "check_model",
    "concatenate_evidence",
    "excerpt",
    "fit_mixture",
    "language_model",
    "load_model",
    "memorize",
    "mixed_nats",
    "perplexity",
    "predict",
    "retrieve",
    "save_model",
    "small_transformer",
]
