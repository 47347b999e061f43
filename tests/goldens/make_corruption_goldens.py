"""Makes corruption_goldens.npz: what the package imagecorruptions makes of a picture.

    pip install imagecorruptions==1.1.2 'scikit-image<0.21' opencv-python-headless 'numpy<2' 'setuptools<80'
    python tests/goldens/make_corruption_goldens.py

The picture is drawn here. Of glass blur, which takes its random numbers in a known order, the images are kept; of snow
and frost, which are drawn in another way here, the mean and the deviation within an image, over 20 drawings.
"""

import pathlib

import numpy as np
from imagecorruptions import corrupt

SIDE = 72  # above 64 pixels, where the constants of ImageNet hold
DRAWINGS = 20


def photo() -> np.ndarray:
    """Waves and a bright disk, uint8 [SIDE, SIDE, 3]."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [0.35 + 0.2 * np.sin(7 * x + k) * np.cos(5 * y - k) for k in range(3)]
    disk = 0.3 * (np.hypot(x - 0.6, y - 0.4) < 0.25)
    return np.rint(255 * np.clip(np.stack(waves, axis=-1) + disk[..., None], 0, 1)).astype(np.uint8)


def main() -> None:
    """Write the file beside this one."""
    picture = photo()
    kept: dict[str, list] = {name: [] for name in ("glass_blur", "snow_mean", "snow_std", "frost_mean", "frost_std")}
    for severity in (1, 2, 3, 4, 5):
        np.random.seed(severity)  # noqa: NPY002 (the package draws from this generator)
        kept["glass_blur"].append(corrupt(picture, severity, "glass_blur"))
        for name in ("snow", "frost"):
            np.random.seed(severity)  # noqa: NPY002
            made = [corrupt(picture, severity, name) for _ in range(DRAWINGS)]
            kept[f"{name}_mean"].append(np.mean(made))
            kept[f"{name}_std"].append(np.mean([np.std(each, axis=(0, 1)).mean() for each in made]))
    arrays = {name: np.array(values) for name, values in kept.items()}
    np.savez_compressed(pathlib.Path(__file__).with_name("corruption_goldens.npz"), photo=picture, **arrays)
    print({name: values.round(2).tolist() for name, values in arrays.items() if name != "glass_blur"})


if __name__ == "__main__":
    main()
