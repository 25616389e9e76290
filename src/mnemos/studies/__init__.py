"""Every system's headline experiment, scaled down, at its threshold.

A study is one file with one `STUDY`; it is imported only when it is asked for.
"""

import importlib

from mnemos.progress import Advance
from mnemos.studies.study import Outcome, Study

__all__ = ["Advance", "Outcome", "Study", "load", "names", "run"]

_FILES = {
    "ab-ac": "ab_ac",
    "atlas": "atlas",
    "attach": "attach",
    "compressive-transformer": "compressive",
    "continuum": "continuum",
    "delta-rule": "delta_rule",
    "dnc": "dnc",
    "dnc-graph": "dnc_graph",
    "engram": "engram",
    "entnet": "entnet",
    "fast-weights": "fast_weights",
    "hopfield": "hopfield",
    "independence": "independence",
    "integration": "integration",
    "knn-lm": "knn_lm",
    "kv-memnn": "kv_memnn",
    "language-model": "language_model",
    "lesion": "lesion",
    "linear-associator": "linear_associator",
    "lstm": "lstm",
    "mann": "mann",
    "memorizing-transformer": "memorizing",
    "memory-network": "memory_network",
    "memn2n": "memn2n",
    "memn2n-single": "memn2n_single",
    "modern-hopfield": "modern_hopfield",
    "mqar": "mqar",
    "ntm": "ntm",
    "ntm-tasks": "ntm_tasks",
    "penguin": "penguin",
    "product-key": "product_key",
    "recurrent-memory": "recurrent_memory",
    "sam": "sam",
    "sdm": "sdm",
    "similarity-weighted-replay": "similarity_weighted_replay",
    "spacing": "spacing",
    "sparse-memory-finetuning": "sparse_finetuning",
    "split-mnist": "split_mnist",
    "state-space": "state_space",
    "store-faults": "store_faults",
    "titans": "titans",
    "transformer-xl": "transformer_xl",
    "ttt": "ttt",
}


def names() -> list[str]:
    """The names of all studies, in alphabetical order."""
    return sorted(_FILES)


def load(name: str) -> Study:
    """The study of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _FILES:
        raise ValueError(f"there is no study {name!r}: there are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{_FILES[name]}").STUDY


def run(name: str, seed: int = 0, *, full: bool = False, advance: Advance | None = None) -> Outcome:
    """Runs a study: `run("lstm").passed` says whether it met its thresholds."""
    return load(name).run(seed, full=full, advance=advance)
