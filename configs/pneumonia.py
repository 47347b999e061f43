"""Biomedical imaging: pneumonia in chest X-rays of children (PneumoniaMNIST), small enough for two cores.

    python -m jaxcnn.main --config=configs/pneumonia.py --config.data.source=npz:pneumoniamnist.npz

The set is one of MedMNIST v2 (J. Yang et al., Scientific Data 2023; https://medmnist.com, CC BY 4.0): 4,708 images for
training, 524 for validation and 624 for the test, 28 x 28 grey. Any other file of MedMNIST with one label an image has
the same layout. Reported beside the accuracy: AUROC with its interval, average precision, balanced accuracy, kappa,
calibration, and the sensitivity at the threshold that keeps a specificity of 90 % on validation. X-rays are not
mirrored, since the heart is on the left. For a file with arrays `train_patient`, `val_patient` and `test_patient`,
`config.data.group=patient` gives figures by patient, and tells the patients that are in two splits.
"""

from jaxcnn.config import default, recipes


def get_config(variant: str = ""):
    config = default()
    config.global_batch_size = 64
    config.model.name = "resnet20"
    config.task.specificity = 0.9
    config.task.class_weights = "auto"
    config.data.source = "npz:pneumoniamnist.npz"
    config.augment.crop = "zero"
    config.augment.crop_padding = 2
    config.augment.brightness = 0.1
    config.augment.contrast = 0.1
    config.optim.learning_rate = 0.05
    config.optim.weight_decay = 5e-4
    config.schedule.warmup = 1.0
    config.run.epochs = 5.0
    config.run.log_every_steps = 10
    config.run.eval_batch_size = 128
    config.run.test_with = "best"
    config.checkpoint.every_epochs = 5.0
    return recipes.apply_variant(config, variant, paper=None)
