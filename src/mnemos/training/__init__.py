"""Training with Lightning. Import this package late: Lightning takes seconds."""

from mnemos.training.continual import Consolidation
from mnemos.training.language import train_language_model
from mnemos.training.loop import TrainingConfig
from mnemos.training.sleep import sleep

__all__ = ["Consolidation", "TrainingConfig", "sleep", "train_language_model"]
