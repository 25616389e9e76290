"""Training a network that answers questions about stories, and what share of its answers is wrong."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from mnemos.models.end_to_end import MemN2N
from mnemos.tasks.babi import Questions


@dataclass(frozen=True)
class AnswerTraining:
    """How to train, by stochastic gradient descent, after Sukhbaatar et al. 2015, section 4.2.

    What the paper leaves open is as in its authors' program for joint tasks (github.com/facebook/MemNN).

    Args:
        epochs: passes over the questions, after the linear start; the learning rate halves every quarter.
        linear_epochs: passes before them, without softmax (linear start).
        blanks: sentences that say nothing are put among the others, this many for each (random noise), so
            that the network cannot rely on exact ages.
        clip: the greatest norm of the gradient of each of A¹ to Cᴷ, where the loss is a sum over the batch.
            Of the matrix as a vector; the program takes the greatest singular value, which is less.
    """

    epochs: int = 60
    linear_epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 0.005
    blanks: float = 0.1
    clip: float = 40.0
    seed: int = 0


def train_answers(
    network: MemN2N,
    learn: Questions,
    choose: Questions,
    training: AnswerTraining,
    advance: Callable[[float, str], None] = lambda share, what: None,
) -> list[float]:
    """Trains a network in place, and returns the error on `choose` after every epoch.

    Questions whose answer the vocabulary lacks are left out of what is learned. `advance` is told
    (share done, from 0 to 1; what is happening) after every epoch.
    """
    learn = learn.pick(learn.answers >= 0)
    generator = torch.Generator().manual_seed(training.seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: _share_of_rate(training, epoch))
    errors = []
    whole = training.linear_epochs + training.epochs
    for epoch in range(whole):
        network.train()
        network.memory.linear = epoch < training.linear_epochs
        order = torch.randperm(len(learn.told), generator=generator)
        for rows in order.split(training.batch_size):
            batch = with_blanks(learn.pick(rows), training.blanks, network.slots, generator)
            answer = network(batch.sentences, batch.told, batch.questions)
            optimizer.zero_grad()
            functional.cross_entropy(answer.logits, batch.answers, reduction="sum").backward()
            _clip(network, training.clip)
            optimizer.step()
        schedule.step()
        errors.append(answer_error(network, choose))
        advance((epoch + 1) / whole, f"epoch {epoch + 1}, error {errors[-1]:.3f}")
    network.memory.linear = False
    return errors


def _share_of_rate(training: AnswerTraining, epoch: int) -> float:
    after = max(epoch - training.linear_epochs, 0)
    return 0.5 ** (4 * after // max(training.epochs, 1))


def _clip(network: MemN2N, most: float) -> None:
    """Shortens the gradients of A¹ to Cᴷ, each with that of its ages, to a norm of at most `most`."""
    assert network.embedding.grad is not None
    assert network.memory.ages is not None
    assert network.memory.ages.grad is not None
    ages = network.memory.ages.grad
    words = network.embedding.grad.unflatten(1, (-1, network.width)).transpose(0, 1)
    norms = (words.square().sum((1, 2)) + ages.square().sum((1, 2))).sqrt()
    shares = (most / norms).clamp(max=1).view(-1, 1, 1)
    words.mul_(shares)
    ages.mul_(shares)


@torch.no_grad()
def answer_error(network: MemN2N, questions: Questions) -> float:
    """The share of questions that are answered wrongly, 0 to 1."""
    network.eval()
    right = [
        network(batch.sentences, batch.told, batch.questions).logits.argmax(-1) == batch.answers
        for batch in map(questions.pick, torch.arange(len(questions.told)).split(500))
    ]
    return 1 - torch.cat(right).double().mean().item()


def with_blanks(questions: Questions, share: float, slots: int, generator: torch.Generator) -> Questions:
    """Each sentence with a blank one before it by chance; the last `slots` of both are kept."""
    count, length, width = questions.sentences.shape
    blank = torch.rand(count, length, generator=generator) < share
    there = torch.arange(length) < questions.told.unsqueeze(1)
    told = questions.told + (blank & there).sum(1)
    kept = told.clamp(max=slots)
    place = torch.arange(length) + blank.cumsum(1) - (told - kept).unsqueeze(1)
    place = place.masked_fill(~there | (place < 0), slots)  # one slot too many takes what is let go

    def moved(told: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return told.new_zeros(count, slots + 1, *told.shape[2:]).scatter(1, places, told)[:, :slots]

    sentences = moved(questions.sentences, place.unsqueeze(-1).expand(-1, -1, width))
    return questions._replace(sentences=sentences, told=kept, supporting=moved(questions.supporting, place))
