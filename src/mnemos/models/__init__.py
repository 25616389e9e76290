"""Memories inside networks."""

from mnemos.models.checkpoint import LanguageModel, ModelError, language_model, load_model, save_model
from mnemos.models.nearest_neighbour import (
    ChangedDocumentError,
    Evidence,
    Mixture,
    OtherModelError,
    Prediction,
    Progress,
    check_model,
    excerpt,
    fit_mixture,
    memorize,
    mixed_nats,
    perplexity,
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
