"""How much a model trusts its memory: fitted on texts that are in neither, and kept beside the model."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mnemos.models.checkpoint import LanguageModel
from mnemos.models.mixture import Evidence, Mixture, concatenate_evidence, fit_mixture
from mnemos.models.nearest_neighbour import retrieve
from mnemos.stores.base import DEFAULT_NAMESPACE, Store
from mnemos.tasks.text import Document

FILE = "mixture.json"


def evidence(
    language_model: LanguageModel,
    store: Store | None,
    documents: Sequence[Document],
    *,
    namespace: str = DEFAULT_NAMESPACE,
    touch: bool = False,
) -> Evidence:
    """What model and memory say of each token of several documents, in their order."""
    return concatenate_evidence(
        [
            retrieve(language_model, store, document.text, namespace=namespace, touch=touch)
            for document in documents
        ]
    )


def tune(
    language_model: LanguageModel,
    store: Store,
    groups: Sequence[Sequence[Document]],
    *,
    namespace: str = DEFAULT_NAMESPACE,
) -> Mixture:
    """The mixture that saves most on the groups of documents, and costs none of them; see `fit_mixture`.

    Args:
        groups: texts that neither the model nor the memory has seen, a group for each kind of text.
    """
    return fit_mixture(
        [
            [retrieve(language_model, store, document.text, namespace=namespace) for document in documents]
            for documents in groups
        ]
    )


def save_mixture(folder: str | Path, mixture: Mixture) -> None:
    """Puts a mixture into a model's folder."""
    draft = Path(folder) / (FILE + ".part")
    facts = {name: value if math.isfinite(value) else None for name, value in asdict(mixture).items()}
    draft.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    draft.replace(Path(folder) / FILE)


def load_mixture(folder: str | Path, width: int) -> Mixture:
    """The mixture in a model's folder, or `default_mixture` where none was fitted."""
    file = Path(folder) / FILE
    if not file.is_file():
        return default_mixture(width)
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        return Mixture(**{name: math.inf if value is None else value for name, value in facts.items()})
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{file} is damaged: delete it, or fit it again") from None


def default_mixture(width: int) -> Mixture:
    """A guess for want of texts to fit it on. The length of a normalised key is near sqrt(width)."""
    return Mixture(temperature=width / 32, weight=0.7, distance=0.35 * width**0.5, softness=0.1 * width**0.5)
