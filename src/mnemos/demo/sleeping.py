"""Step 7: the memory is replayed into the weights, and dropped."""

import shutil
import time

import mnemos
from mnemos.demo import texts
from mnemos.demo.plan import Plan
from mnemos.demo.results import Learned, Slept
from mnemos.models.checkpoint import load_model
from mnemos.models.mixture import perplexity
from mnemos.models.tuning import evidence
from mnemos.progress import Advance, between

SHARE = 0.2  # of the seconds, or steps, of training
RATE = 1e-3  # a third of the training's


def rest(plan: Plan, learned: Learned, advance: Advance) -> Slept:
    """Sleeps over the memory, interleaved with text of A, and judges the new model by itself."""
    from mnemos.training import TrainingConfig, sleep

    a, b = texts.load(plan.folder)
    folder = plan.fresh("slept")
    steps = None if plan.steps is None else max(1, round(SHARE * plan.steps))
    config = TrainingConfig(steps, SHARE * plan.seconds, learning_rate=RATE, seed=plan.seed)
    started = time.perf_counter()
    with mnemos.open(plan.memory, read_only=True) as store:
        night = sleep(
            load_model(plan.model),
            store,
            a.train,
            folder,
            config,
            progress=False,
            advance=between(advance, 0.0, 0.9),
        )
    seconds = time.perf_counter() - started
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    advance(0.9, "scoring unseen text without any memory")
    a_after, b_after = (perplexity(evidence(night.model, None, split.test).nats) for split in (a, b))
    return Slept(
        seconds=seconds,
        a_before=learned.a_without,
        a_after=a_after,
        b_before=learned.b_without,
        b_with=learned.b_with,
        b_after=b_after,
    )
