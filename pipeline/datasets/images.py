"""One image in, uint8 pixels of the wanted size out, or a reason why not."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.datasets.records import Payload

MAX_PIXELS = 89_478_485  # Pillow's own warning level; a larger image is taken for a bomb

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """An image that cannot be used. The message is the reason, without the file's name."""


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Lower-case suffixes (".png") of the formats that Pillow reads; loads all of its plugins."""
    formats = Image.registered_extensions()
    return frozenset(suffix for suffix, name in formats.items() if name in Image.OPEN)


def decode(
    payload: Payload,
    *,
    image_size: int,
    channels: int,
    fit: str,
    resize_filter: str,
    background: int,
) -> np.ndarray:
    """An image as uint8 (image_size, image_size, channels).

    Upright by its EXIF tag; transparency is laid on the gray level `background`, which also fills
    the border of fit="pad"; 16-bit gray keeps its upper 8 bits; the first frame of several.
    Raises ImageError where the image is corrupt, cut short, or larger than MAX_PIXELS.
    """
    shape = (image_size, image_size, channels)
    if isinstance(payload, np.ndarray):
        if payload.shape == shape:
            return payload
        if (*payload.shape, 1) == shape:
            return payload[:, :, None]
    try:
        image = _pixels(payload, "L" if channels == 1 else "RGB", background)
        image = FITS[fit](image, image_size, RESIZE_FILTERS[resize_filter], background)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not an image, or not in a format that Pillow reads") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # a broken file can make Pillow's plugins raise anything
        raise ImageError(_reason(error)) from error
    return np.asarray(image).reshape(shape)


def _pixels(payload: Payload, mode: str, background: int) -> Image.Image:
    """The whole image, upright, as 8-bit "L" or "RGB"."""
    if isinstance(payload, np.ndarray):
        single = payload.ndim == 3 and payload.shape[2] == 1
        return Image.fromarray(payload[:, :, 0] if single else payload).convert(mode)
    with _open(payload) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(f"{image.width} x {image.height}: more than {MAX_PIXELS:,} pixels")
        image.load()  # before the tag is read: for TIFF, loading turns the image and drops it
        orientation = _orientation(image)
        flat = _eight_bit(image, mode, background)
    upright = _UPRIGHT.get(orientation)
    return flat if upright is None else flat.transpose(upright)


def _open(payload: bytes | Path) -> Image.Image:
    if isinstance(payload, Path) and payload.suffix:
        suffix = payload.suffix.lower()
        if suffix not in readable_suffixes():
            raise ImageError(f"{suffix} is not an image format that Pillow reads")
    if not isinstance(payload, Path) and not payload:
        raise ImageError("empty: no bytes at all")
    image = Image.open(payload if isinstance(payload, Path) else io.BytesIO(payload))
    if image.format != "PNG":
        return image
    with image:
        image.verify()  # loading alone compares no checksum; `verify` uses the image up
    return Image.open(payload if isinstance(payload, Path) else io.BytesIO(payload))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block does not make the pixels unusable
        return 1


def _eight_bit(image: Image.Image, mode: str, background: int) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scaled(image, 65535).convert(mode)
    if image.mode == "F":
        return _scaled(image, 1).convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(canvas, image)
    return image.convert(mode)


def _scaled(image: Image.Image, white: int) -> Image.Image:
    """Numbers from 0 to `white` as 8-bit gray. No guess is made where the range is another."""
    pixels = np.asarray(image).astype(np.float64)
    if not (pixels.min() >= 0 and pixels.max() <= white):  # also catches NaN
        raise ImageError(
            f"{image.mode} pixels from {pixels.min():g} to {pixels.max():g}; 0 to {white} is read"
        )
    return Image.fromarray(np.rint(pixels * (255 / white)).astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which differs between machines
    return str(error) or type(error).__name__


def _crop(image: Image.Image, size: int, method: Image.Resampling, _: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.resize((size, size), method, box=(left, top, left + side, top + side))


def _squash(image: Image.Image, size: int, method: Image.Resampling, _: int) -> Image.Image:
    return image.resize((size, size), method)


def _pad(image: Image.Image, size: int, method: Image.Resampling, background: int) -> Image.Image:
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    colour = background if image.mode == "L" else (background,) * 3
    canvas = Image.new(image.mode, (size, size), colour)
    canvas.paste(image.resize((width, height), method), ((size - width) // 2, (size - height) // 2))
    return canvas


FITS = {"crop": _crop, "pad": _pad, "squash": _squash}

RESIZE_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
