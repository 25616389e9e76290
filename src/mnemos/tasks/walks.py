"""Who is where? Stories like those of bAbI's first task, made on the spot where its files are not at hand."""

import torch

from mnemos.tasks.babi import Question, Story

NAMES = ("john", "mary", "sue")
PLACES = ("garden", "hall", "kitchen", "office")


def walks(count: int, sentences: int = 5, seed: int = 0) -> list[Story]:
    """Stories in which people walk from place to place, each with one question after one of the last two."""
    generator = torch.Generator().manual_seed(seed)

    def chosen(among: int) -> int:
        return int(torch.randint(among, (), generator=generator))

    found = []
    for _ in range(count):
        said = [(NAMES[chosen(len(NAMES))], PLACES[chosen(len(PLACES))]) for _ in range(sentences)]
        name = said[-1 - chosen(2)][0]
        last = max(number for number, (who, _) in enumerate(said) if who == name)
        question = Question(("where", "is", name), said[last][1], (last,), sentences)
        found.append(Story(1, tuple((who, "went", "to", "the", place) for who, place in said), (question,)))
    return found
