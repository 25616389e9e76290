import pytest
import torch

from mnemos.tasks.world_model import AHEAD, WorldModel


def follow(task, inputs):
    """Reads a story back, statement by statement, and answers its question."""
    place, facing = {}, {}
    for step in inputs:
        words = step.nonzero().flatten().tolist()
        agent, rest = words[0], [word - 2 for word in words[1:]]
        if len(rest) == 2:
            place[agent] = [rest[0], rest[1] - task.grid]
        elif rest[0] == 2 * task.grid + 4 + task.farthest:
            assert step is inputs[-1]
            return place[agent][0] * task.grid + place[agent][1]
        elif rest[0] < 2 * task.grid + 4:
            facing[agent] = rest[0] - 2 * task.grid
        else:
            far = rest[0] - 2 * task.grid - 4 + 1
            ahead = AHEAD[facing[agent]].tolist()
            place[agent] = [at + far * step for at, step in zip(place[agent], ahead, strict=True)]
            assert all(0 <= at < task.grid for at in place[agent])
    raise AssertionError("no question")


@pytest.mark.parametrize("statements", [5, 20])
def test_answers_follow_from_the_statements_and_nobody_leaves_the_grid(statements):
    task = WorldModel(statements)
    batch = task.batch(200, torch.Generator().manual_seed(0))
    assert batch.inputs.shape == (200, statements + 1, task.input_size)
    assert batch.scored.sum(1).eq(1).all()
    assert batch.scored[:, -1].all()
    answers = [follow(task, list(row.unbind())) for row in batch.inputs]
    assert answers == batch.targets[:, -1].tolist()
    assert len(set(answers)) > 60  # of a hundred squares
    right = torch.nn.functional.one_hot(batch.targets, task.output_size).float()
    assert task.error(right, batch) == 0


def test_where_the_agents_are_is_known_after_every_statement_once_they_were_placed():
    task = WorldModel(20)
    statements, squares = task.stories(20, 12, torch.Generator().manual_seed(0))
    for row, places in zip(statements, squares, strict=True):
        for time in (4, 7, 12):
            for agent, question in enumerate(task.questions):
                story = torch.cat([row[:time], question.unsqueeze(0)])
                assert follow(task, list(story)) == places[time - 1, agent]


def test_stories_are_the_same_for_the_same_generator_and_of_several_lengths():
    task = WorldModel(9, shortest=5)
    first, second = (task.batch(3, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)
    generator = torch.Generator().manual_seed(0)
    assert {task.batch(1, generator).inputs.shape[1] for _ in range(40)} == {6, 7, 8, 9, 10}
    with pytest.raises(ValueError, match="at least 5"):
        WorldModel(4)
