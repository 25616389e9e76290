"""Memories for Hugging Face models: `attach`. Only `surface` knows transformers."""

from mnemos.models.hugging_face.attachment import Attachment, attach
from mnemos.models.hugging_face.attention_memory import AttentionMemory
from mnemos.models.hugging_face.laws import examine

__all__ = ["Attachment", "AttentionMemory", "attach", "examine"]
