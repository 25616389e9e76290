"""A task is a source of batches and a score."""

from mnemos.tasks.text import (
    Document,
    RepeatedLines,
    Split,
    Tokens,
    bits_per_byte,
    count_bytes,
    encode,
    novels,
    python_reference,
    read_documents,
    repeated_lines,
    split_documents,
    standard_library,
    train_tokenizer,
)

__all__ = [
    "Document",
    "RepeatedLines",
    "Split",
    "Tokens",
    "bits_per_byte",
    "count_bytes",
    "encode",
    "novels",
    "python_reference",
    "read_documents",
    "repeated_lines",
    "split_documents",
    "standard_library",
    "train_tokenizer",
]
