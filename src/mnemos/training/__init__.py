"""Training with Lightning. Import this package late: Lightning takes seconds."""

from mnemos.training.language import train_language_model
from mnemos.training.loop import TrainingConfig

__all__ = ["TrainingConfig", "train_language_model"]
