"""bAbI word by word: a whole story with its questions is one sequence, answered at marks after each question.

The form of Graves et al. 2016 (the DNC): a word at every step, full stops and question marks included, and
after each question one mark "-" for every word of its answer, at which the network says that word.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mnemos.tasks.babi import Story, Vocabulary, babi, hold_out
from mnemos.tasks.task import Batch, ClassTask

ANSWER = "-"


def word_vocabulary(stories: Sequence[Story]) -> Vocabulary:
    """All words of what is learned from, those of answers one by one, and the marks."""
    return Vocabulary(word for story in stories for pair in _spoken(story) for word in pair if word)


def babi_words(
    tasks: Sequence[int] | int = 1, size: str = "en", longest: int | None = None, seed: int = 0
) -> "BabiWords":
    """The stories to learn from of one task or of several, a tenth of them held out.

    Args:
        tasks, size: as in `tasks.babi.babi`, which also says where the stories are looked for.
        longest: as in `BabiWords`.
        seed: of which stories are held out.
    """
    stories = babi([tasks] if isinstance(tasks, int) else tasks, "train", size=size, download=True)
    learn, choose = hold_out(stories, seed=seed)
    return BabiWords(tuple(learn), word_vocabulary(stories), longest, tuple(choose))


@dataclass(frozen=True)
class BabiWords(ClassTask):
    """Stories as sequences of words; one class for every number of the vocabulary.

    Args:
        stories: of one task or of several, for joint training. Their words must be in the vocabulary.
        vocabulary: of `word_vocabulary`.
        longest: stories of more steps are left out; None leaves out none. A story of task 3 has up to
            1,900 steps, one of task 1 about 90.
        held_out: stories to be judged by while the others are learned.
    """

    stories: tuple[Story, ...]
    vocabulary: Vocabulary
    longest: int | None = None
    held_out: tuple[Story, ...] = ()

    def unseen(self) -> "BabiWords":
        return replace(self, stories=self.held_out, held_out=()) if self.held_out else self

    @property
    def input_size(self) -> int:
        return len(self.vocabulary)

    @property
    def output_size(self) -> int:
        return len(self.vocabulary)

    def batch(self, rows: int, generator: torch.Generator) -> Batch:
        """That many stories, drawn with replacement."""
        chosen = torch.randint(len(self._sequences), (rows,), generator=generator)
        return self._padded([self._sequences[place] for place in chosen.tolist()])

    def batches(self, rows: int) -> Iterator[Batch]:
        """Every story once, those of like length together: what one is tested on."""
        ordered = sorted(self._sequences, key=lambda pair: len(pair[0]))
        for start in range(0, len(ordered), rows):
            yield self._padded(ordered[start : start + rows])

    def error(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> float:
        """The share of wrong answers; an answer of several words is wrong if one of them is."""
        wrong, questions = self.wrong(outputs, batch)
        return wrong / questions

    def wrong(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> tuple[int, int]:
        """(Wrong answers, questions)."""
        begins = batch.scored & ~functional.pad(batch.scored, (1, 0))[:, :-1]
        question = begins.flatten().cumsum(0)[batch.scored.flatten()] - 1
        mistaken = (outputs.argmax(-1) != batch.targets)[batch.scored]
        count = int(begins.sum())
        wrong = torch.zeros(count, dtype=torch.bool, device=outputs.device)
        wrong[question[mistaken]] = True
        return int(wrong.sum()), count

    @cached_property
    def _sequences(self) -> list[tuple[Int[Tensor, " time"], Int[Tensor, " time"]]]:
        """For every story its words and, at the marks, what is to be answered there; 0 elsewhere."""
        found = []
        for story in self.stories:
            words, answers = zip(*_spoken(story), strict=True)
            if self.longest is None or len(words) <= self.longest:
                # An answer's word that the vocabulary lacks is a class that no output has: always wrong.
                targets = [
                    0 if not word else self.vocabulary.numbers([word])[0] if word in self.vocabulary else -1
                    for word in answers
                ]
                found.append((torch.tensor(self.vocabulary.numbers(words)), torch.tensor(targets)))
        if not found:
            raise ValueError(f"longest leaves out every story: {self.longest}")
        return found

    def _padded(self, sequences: list[tuple[Tensor, Tensor]]) -> Batch:
        words, targets = (
            torch.nn.utils.rnn.pad_sequence(list(part), batch_first=True)
            for part in zip(*sequences, strict=True)
        )
        return Batch(
            functional.one_hot(words, len(self.vocabulary)).float(), targets, targets != 0, words != 0
        )


def _spoken(story: Story) -> list[tuple[str, str]]:
    """Each step's word, and what is to be answered there."""
    steps: list[tuple[str, str]] = []
    told = 0
    for question in story.questions:
        for sentence in story.sentences[told : question.after]:
            steps += [(word, "") for word in (*sentence, ".")]
        told = question.after
        steps += [(word, "") for word in (*question.words, "?")]
        steps += [(ANSWER, word) for word in question.answer.split(",")]
    return steps
