"""Adapts a trained network to a few hundred or thousand images of one's own.

    python -m jaxcnn.main --config=configs/finetune.py --config.data.source=folder:photos \\
        --config.init.source=workdir:runs/resnet50

The network is the one that the weights are of (`config.model.name="auto"`). Without `config.init.source` the same
recipe trains a ResNet50 from drawn weights. The classifier is new where the classes differ; it learns at the full
rate, all other layers at a tenth of it. Images are mirrored, as suits photos; where left and right matter, as in
X-rays, set `config.augment.flip=none`. `:head` trains the classifier alone, with frozen BatchNorm. `:probe` trains
nothing: the classifier is fitted to what the network sees. `:probed` starts from this classifier and trains all
layers (Kumar et al. 2022, arXiv 2202.10054). `:average` trains nothing and leaves the classifier as it is, for
averages of runs.
"""

from jaxcnn.config import default, recipes


def get_config(variant: str = ""):
    config = default()
    config.global_batch_size = 64
    config.model.name = "auto"
    config.data.source = "folder:photos"
    config.data.image_size = 64
    config.data.stratify = True
    config.augment.crop = "reflect"
    config.augment.flip = "random"
    config.optim.learning_rate = 0.1
    config.optim.weight_decay = 5e-4
    config.optim.layers = (("classifier/.*", 1.0), (".*", 0.1))
    config.optim.label_smoothing = 0.1
    config.schedule.warmup = 1.0
    config.run.epochs = 20.0
    config.run.log_every_steps = 10
    config.run.eval_batch_size = 128
    config.run.test_with = "best"
    config.checkpoint.every_epochs = 5.0
    return recipes.apply_variant(
        config, variant, paper=None, head=_head, probe=_probe, probed=_probed, average=_as_it_is
    )


def _head(config) -> None:
    config.optim.layers = (("classifier/.*", 1.0), (".*", 0.0))
    config.optim.freeze_norm = True


def _as_it_is(config) -> None:
    _head(config)
    config.augment.crop = "none"
    config.augment.flip = "none"
    config.optim.learning_rate = 0.0
    config.schedule.warmup = 0.0
    config.run.epochs = 0.0
    config.run.steps = 1


def _probe(config) -> None:
    _as_it_is(config)
    config.init.head = "fitted"


def _probed(config) -> None:
    config.init.head = "fitted"
    config.optim.layers = (("classifier/.*", 1.0), (".*", 1.0))
    config.optim.learning_rate = 0.01
