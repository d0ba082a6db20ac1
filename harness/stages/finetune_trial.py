"""A trial of one learning rate: fine-tuning on part of the training examples, scored on the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.engine.held_out import split_examples
from harness.engine.predict import NotFinite
from harness.stage import Context, Diverged
from harness.stages.classifier import Classifier, classifier
from methods.recipe import Optimisation
from tasks.encoding import Encoded


def run(context: Context) -> Mapping[str, Any]:
    """Write `trial.json`: the rate, and the main metric on the held-out examples, or the step at which it diverged.

    A trial that diverges is a result: it is not chosen. The validation split is not read.
    """
    tuned = classifier(context)
    rate = tuned.recipe.learning_rate
    assert isinstance(rate, float), "a trial is of one rate"
    examples = tuned.examples("train")
    rest, held_out = split_examples(examples.labels, context.params["held_out"])
    batches = tuned.batches(examples.take(rest))
    steps, score, ran = batches.steps(tuned.recipe.epochs), None, {}
    try:
        result = tuned.train(batches, optimisation(tuned, rate, steps, len(examples.labels)))
        ran = {"train_s": result.seconds, "micro_batch": result.micro_batch}
        if context.ranks.rank == 0:
            score = _score(tuned, examples.take(held_out))
    except Diverged as diverged:
        steps = diverged.step
    except NotFinite:
        pass
    if context.ranks.rank > 0:
        return {}
    ended = {"diverged_at_step": steps} if score is None else {"held_out_score": score}
    trial = {"learning_rate": rate, **ended}
    (context.output / "trial.json").write_text(json.dumps(trial))
    tokens = sum(batches.tokens(step) for step in range(steps))
    spent = {"tokens": tokens, "flops": tokens * tuned.flops_per_token, **ran}
    return {**trial, "held_out_examples": len(held_out), **spent}


def optimisation(tuned: Classifier, rate: float, steps: int, rows: int) -> Optimisation:
    """At one rate; a warm-up in steps, which is that of the training on all `rows`, is scaled to the trial's."""
    asked = tuned.recipe.optimisation(rate)
    if asked.warmup_steps is None:
        return asked
    whole = tuned.context.params["epochs"] * -(-rows // tuned.recipe.batch_examples)
    return asked.model_copy(update={"warmup_steps": round(asked.warmup_steps * steps / whole)})


def _score(tuned: Classifier, examples: Encoded) -> float:
    """The task's main metric."""
    predictions = tuned.predictions(tuned.logits(examples))
    return tuned.task.held_out_score(predictions, examples.labels.tolist())
