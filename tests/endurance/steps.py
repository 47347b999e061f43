"""Train a small run from Python, with callbacks, and write samples of this process: `python -m tests.endurance.steps`.

python -m tests.endurance.steps <workdir> <steps> <file of samples>
"""

import dataclasses
import json
import os
import pathlib
import sys

import jaxcnn
from tests.endurance.samples import sample

SAMPLES = 400
SAVES, VALIDATIONS = 200, 100  # in a run
# So small that a step takes 3 ms of processor time: what is watched is what surrounds it.
BATCH, WIDTH, RATE = 8, 0.25, 0.05


def main() -> int:
    """Train; return the exit code."""
    workdir, steps, out = pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    every, seen = max(1, steps // SAMPLES), {"steps": 0, "evaluations": 0, "loss": 0.0}
    config = jaxcnn.config("quickstart")
    config.global_batch_size, config.run.steps = BATCH, steps
    config.model.width, config.optim.learning_rate = WIDTH, RATE
    config.run.log_every_steps, config.run.curves = max(1, steps // 1000), False
    config.checkpoint.every_steps = max(1, steps // SAVES)
    examples = 1437  # of the digits' training split
    config.run.eval_every_epochs = steps / VALIDATIONS / (examples // BATCH)
    with out.open("w") as file:

        def after_step(step: jaxcnn.Step) -> None:
            seen["steps"] += 1
            if step.step % every == 0:
                seen["loss"] = float(step.metrics["loss"])
                file.write(json.dumps(dataclasses.asdict(sample(os.getpid(), step.step))) + "\n")

        def after_evaluation(_: jaxcnn.Evaluation) -> None:
            seen["evaluations"] += 1

        jaxcnn.train(config, workdir, after_step=after_step, after_evaluation=after_evaluation, progress=False)
    print(json.dumps(seen))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
