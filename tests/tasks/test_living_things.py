import torch

from mnemos.tasks.living_things import ATTRIBUTES, ITEMS, PENGUIN, RELATIONS, THINGS, facts


def test_every_fact_is_of_one_item_and_one_relation() -> None:
    every = facts()
    assert every.inputs.shape == (36, 13)
    assert every.attributes.shape == (36, 36)
    items, relations = every.inputs.split([len(ITEMS), len(RELATIONS)], dim=1)
    assert torch.equal(items.argmax(1), every.items)
    assert torch.equal(relations.argmax(1), every.relations)
    assert (items.sum(1) == 1).all()
    assert (relations.sum(1) == 1).all()
    assert len(every.inputs.unique(dim=0)) == 36


def test_attributes_are_those_of_the_table() -> None:
    every = facts()
    for row, (item, relation) in enumerate(zip(every.items.tolist(), every.relations.tolist(), strict=True)):
        true = {name for name, value in zip(ATTRIBUTES, every.attributes[row].tolist(), strict=True) if value}
        assert true == set(THINGS[ITEMS[item]][relation].split())


def test_an_attribute_completes_one_relation_alone() -> None:
    every = facts()
    by_relation = torch.stack([every.attributes[every.relations == one].amax(0) for one in range(4)])
    assert (by_relation.sum(0) == 1).all()


def test_the_penguin_is_a_bird_that_swims_and_does_not_fly() -> None:
    isa, _, can, has = (set(fact.split()) for fact in THINGS["penguin"])
    assert ITEMS[PENGUIN] == "penguin"
    assert "bird" in isa
    assert "swim" in can
    assert "fly" not in can
    assert has == set(THINGS["robin"][3].split())
