"""The figures of validation that may decide which weights are best (`config.task.monitor`), by task."""

from collections.abc import Mapping

# The label in text, whether less is better, and whether it is a share, shown in per cent.
Kind = tuple[str, bool, bool]

LOSS: Mapping[str, Kind] = {"loss": ("loss", True, False)}
_OF_BOXES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ar": "AR",
}
OF_TASKS: Mapping[str, Mapping[str, Kind]] = {
    "classification": {
        "top1_accuracy": ("accuracy", False, True),
        "top5_accuracy": ("top-5 accuracy", False, True),
        "balanced_accuracy": ("balanced accuracy", False, True),
        "macro_precision": ("macro precision", False, True),
        "macro_recall": ("macro recall", False, True),
        "macro_f1": ("macro F1", False, True),
        "macro_auroc": ("AUROC", False, True),
        "calibration_error": ("calibration error", True, True),
        **LOSS,
    },
    "multilabel": {
        "mean_average_precision": ("mean average precision", False, True),
        "macro_auroc": ("AUROC", False, True),
        "micro_f1": ("micro F1", False, True),
        "macro_f1": ("macro F1", False, True),
        "sample_f1": ("sample F1", False, True),
        "exact_match": ("exact match", False, True),
        **LOSS,
    },
    "regression": {
        "mean_absolute_error": ("mean absolute error", True, False),
        "mean_squared_error": ("mean squared error", True, False),
        **LOSS,
    },
    "segmentation": {
        "mean_iou": ("mean IoU", False, True),
        "mean_dice": ("mean Dice", False, True),
        "overall_accuracy": ("overall accuracy", False, True),
        "pixel_accuracy": ("pixel accuracy", False, True),
        **LOSS,
    },
    "detection": {**{name: (label, False, True) for name, label in _OF_BOXES.items()}, **LOSS},
    "instances": {
        **{f"mask_{name}": (f"mask {label}", False, True) for name, label in _OF_BOXES.items()},
        **{name: (label, False, True) for name, label in _OF_BOXES.items()},
        **LOSS,
    },
}
_LESS_IS_BETTER = ("loss", "error")  # parts of the names of figures of users, of which less is better


def kind_of(name: str, task: str, mode: str) -> Kind:
    """What a figure is called, whether less is better, and whether it is a share.

    Args:
      name: its name among the figures.
      task: `config.task.name`.
      mode: `config.task.monitor_mode`; "auto" takes figures of users as better the higher they are, unless their name
        has "loss" or "error" in it.
    """
    label, less, percent = OF_TASKS[task].get(
        name, (name.replace("_", " "), any(part in name.lower() for part in _LESS_IS_BETTER), False)
    )
    return label, less if mode == "auto" else mode == "min", percent


def is_share(name: str) -> bool:
    """Whether a figure of one of our tasks is a share, which is shown in per cent; also that of an average."""
    plain = name.removeprefix("ema_").removeprefix("tta_")
    return any(figures[plain][2] for figures in OF_TASKS.values() if plain in figures)
