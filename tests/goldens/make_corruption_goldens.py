"""Makes corruption_goldens.npz: what the package imagecorruptions makes of a picture.

    pip install --no-deps imagecorruptions==1.1.2
    python tests/goldens/make_corruption_goldens.py      # where NumPy, SciPy and Pillow are installed

The picture is drawn here. Of glass blur, which takes its random numbers in a known order, the images are kept; of snow
and frost, which are drawn in another way here, the mean and the deviation within an image, over 20 drawings.

The package needs old versions of scikit-image, OpenCV and setuptools. What its three functions call of these is given
here by SciPy and Pillow: a Gaussian filter that repeats the pixels at the border, as scikit-image's does, the weights
of grey in OpenCV, and the reading and enlarging of its photographs, of which only the mean and deviation count.
"""

import importlib.util
import pathlib
import sys
import types

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 72  # above 64 pixels, where the constants of ImageNet hold
DRAWINGS = 20


def stand_ins() -> dict[str, types.ModuleType]:
    """Modules with the functions of other packages that are called, by name."""
    made = {name: types.ModuleType(name) for name in ("skimage", "skimage.filters", "cv2", "pkg_resources")}
    made["scipy.ndimage.interpolation"] = types.ModuleType("scipy.ndimage.interpolation")
    made["scipy.ndimage.interpolation"].map_coordinates = ndimage.map_coordinates

    def gaussian(image: np.ndarray, sigma: float, multichannel: bool) -> np.ndarray:
        return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")

    def resize(image: np.ndarray, dsize: tuple[int, int], interpolation: int) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize(dsize, Image.Resampling.BICUBIC))

    made["skimage.filters"].gaussian = gaussian
    cv2 = made["cv2"]
    cv2.COLOR_RGB2GRAY = cv2.INTER_CUBIC = 0
    cv2.cvtColor = lambda image, _: image @ np.float32([0.299, 0.587, 0.114])
    cv2.imread = lambda path: np.asarray(Image.open(path).convert("RGB"))[..., ::-1]
    cv2.resize = resize
    made["pkg_resources"].resource_filename = lambda _, path: str(package() / path)
    return made


def package() -> pathlib.Path:
    """The folder of the package."""
    found = importlib.util.find_spec("imagecorruptions")
    return pathlib.Path(found.origin).parent


def photo() -> np.ndarray:
    """Waves and a bright disk, uint8 [SIDE, SIDE, 3]."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [0.35 + 0.2 * np.sin(7 * x + k) * np.cos(5 * y - k) for k in range(3)]
    disk = 0.3 * (np.hypot(x - 0.6, y - 0.4) < 0.25)
    return np.rint(255 * np.clip(np.stack(waves, axis=-1) + disk[..., None], 0, 1)).astype(np.uint8)


def main() -> None:
    """Write the file beside this one."""
    sys.modules |= stand_ins()
    from imagecorruptions import corrupt

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
