"""A picture of the user's, as a model of torchvision's wants it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, BinaryIO

from torch import Tensor

from autograd_tui.engine.values.errors import Refused
from autograd_tui.engine.values.files import open_to_read

if TYPE_CHECKING:
    from PIL.Image import Image

NARROWEST = 100  # times as long as wide, above which resizing would fill the memory


def read_picture(path: str) -> Image:
    """Read a JPEG, PNG or any file that Pillow knows, in three colours. Raises Refused."""
    from PIL import Image

    try:
        with open_to_read(path) as file, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = _decoded(path, file)
    except OSError as error:
        raise Refused(f'--image "{path}" could not be read: {error.strerror or error}.') from error
    width, height = picture.size
    if max(width, height) > NARROWEST * min(width, height):
        raise Refused(f'--image "{path}" is {width} x {height} pixels: too long and narrow.')
    return picture


def _decoded(path: str, file: BinaryIO) -> Image:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(f'--image "{path}" has too many pixels.') from error
    except Exception as error:
        raise Refused(f'--image "{path}" is no picture that can be read: JPEG and PNG are, where whole.') from error


def prepared(image: Tensor | Image, trained: Any, size: int | None, *, whole: bool) -> Tensor:
    """Make it what `trained` weights were trained on: resized, its middle `size` x `size` pixels, normalised.

    whole: keep all of it, for one that has that size already.
    """
    usual = trained.transforms()
    if size is None:
        return usual(image)  # type: ignore[no-any-return]
    resized = size if whole else size * usual.resize_size[0] // usual.crop_size[0]
    return trained.transforms(crop_size=size, resize_size=resized)(image)  # type: ignore[no-any-return]
