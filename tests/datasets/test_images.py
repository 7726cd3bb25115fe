from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import images
from pipeline.datasets.images import ImageError, decode

from .small_data import FORM, encoded, noise


def saved(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def form(**changes: object) -> dict:
    return {**FORM, **changes}


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_lossless_formats_come_back_pixel_for_pixel(image_format: str) -> None:
    pixels = noise(8, 8)
    assert (decode(encoded(pixels, image_format), **FORM)[:, :, 0] == pixels).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (10, 7, 3), (5, 9)])
def test_every_payload_gets_the_wanted_shape(shape: tuple[int, ...], channels: int) -> None:
    pixels = decode(noise(*shape), **form(channels=channels))
    assert pixels.shape == (8, 8, channels)
    assert pixels.dtype == np.uint8


def test_pixels_of_the_right_size_pass_through_uncopied() -> None:
    pixels = noise(8, 8)
    assert np.shares_memory(decode(pixels, **FORM), pixels)


def test_gray_becomes_three_equal_channels_and_colour_becomes_luma() -> None:
    pixels = noise(8, 8)
    assert (decode(pixels, **form(channels=3)) == pixels[:, :, None]).all()
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert (decode(red, **FORM) == 76).all()  # 0.299 * 255, ITU-R 601


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_exif_orientation_is_undone(tag: int, image_format: str) -> None:
    from PIL import ImageOps

    image = Image.fromarray(noise(8, 8))
    exif = Image.Exif()
    exif[0x0112] = tag
    data = saved(image, image_format, exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))
    assert (decode(data, **FORM)[:, :, 0] == upright).all()
    turned = (decode(data, **FORM)[:, :, 0] != np.asarray(image)).any()
    assert turned == (tag != 1)


def test_transparency_shows_the_background() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, 4:, 3] = 255  # left half clear, right half black
    decoded = decode(encoded(pixels), **form(background=200))[:, :, 0]
    assert (decoded[:, :4] == 200).all()
    assert (decoded[:, 4:] == 0).all()


def test_half_transparency_is_blended() -> None:
    pixels = np.zeros((8, 8, 2), np.uint8)
    pixels[..., 1] = 128
    assert decode(encoded(pixels), **form(background=255))[0, 0, 0] == pytest.approx(127, abs=1)


def test_transparent_palette_shows_the_background() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 10, 10, 90, 90, 90])
    image.putpixel((0, 0), 0)
    decoded = decode(saved(image, transparency=0), **form(background=200))[:, :, 0]
    assert decoded[0, 0] == 200
    assert (decoded[1:] == 90).all()


def test_palette_becomes_its_colours() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert (decode(saved(image), **form(channels=3)) == [10, 20, 30]).all()


def test_cmyk_and_bilevel_are_read() -> None:
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert decode(saved(white, "TIFF"), **form(channels=3)).min() == 255
    assert decode(saved(Image.new("1", (8, 8), 1)), **FORM).min() == 255


def test_sixteen_bit_gray_keeps_its_whole_range() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    expected = np.rint(ramp / 257).astype(np.uint8)
    for image_format in ("PNG", "TIFF"):
        decoded = decode(saved(Image.fromarray(ramp), image_format), **FORM)[:, :, 0]
        assert (decoded == expected).all()


def test_float_images_are_read_from_zero_to_one_only() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    decoded = decode(saved(Image.fromarray(ramp), "TIFF"), **FORM)[:, :, 0]
    assert (decoded == np.rint(ramp * 255)).all()
    with pytest.raises(ImageError, match="0 to 1 is read"):
        decode(saved(Image.fromarray(ramp * 300), "TIFF"), **FORM)


def stripes() -> np.ndarray:
    """8 high, 24 wide: black, gray, white thirds."""
    return np.repeat(np.array([0, 100, 250], np.uint8), 8)[None].repeat(8, 0)


def test_crop_keeps_the_centre() -> None:
    assert (decode(stripes(), **FORM) == 100).all()


def test_squash_keeps_everything() -> None:
    decoded = decode(stripes(), **form(fit="squash", resize_filter="nearest"))[0, :, 0]
    assert decoded.tolist() == [0, 0, 0, 100, 100, 250, 250, 250]


def test_pad_keeps_the_shape_on_the_background() -> None:
    decoded = decode(stripes(), **form(fit="pad", resize_filter="nearest", background=7))[:, :, 0]
    assert (decoded[[0, 1, 5, 6, 7]] == 7).all()
    assert set(decoded[3]) == {0, 100, 250}
    tall = decode(stripes().T, **form(fit="pad", resize_filter="nearest", background=7))[:, :, 0]
    assert (tall == decoded.T).all()
    assert (decode(np.zeros((8, 999), np.uint8), **form(fit="pad")) == 0).any()


def test_filters_differ() -> None:
    large = noise(40, 40)
    seen = {decode(large, **form(resize_filter=name)).tobytes() for name in images.RESIZE_FILTERS}
    assert len(seen) == len(images.RESIZE_FILTERS)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_an_image_that_is_cut_short_is_refused(image_format: str, kept: float) -> None:
    data = encoded(noise(64, 64, 3), image_format)
    with pytest.raises(ImageError):
        decode(data[: int(len(data) * kept)], **FORM)


def test_a_png_with_one_wrong_byte_is_refused() -> None:
    data = bytearray(encoded(noise(64, 64)))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError):
        decode(bytes(data), **FORM)


def test_a_broken_exif_block_costs_no_image() -> None:
    data = encoded(noise(8, 8), "JPEG", exif=b"Exif\0\0garbage, not a TIFF header")
    assert decode(data, **FORM).shape == (8, 8, 1)


def test_no_image_is_refused_without_an_address_in_the_reason() -> None:
    for payload in (b"", b"hello", b"\0" * 1000):
        with pytest.raises(ImageError) as caught:
            decode(payload, **FORM)
        assert "0x" not in str(caught.value)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    png += chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="pixels"):
        decode(png, **FORM)


def test_a_file_is_judged_by_its_suffix_and_its_content(tmp_path: Path) -> None:
    data = encoded(noise(8, 8))
    for name in ("a.PNG", "no_suffix"):
        (tmp_path / name).write_bytes(data)
        assert decode(tmp_path / name, **FORM).shape == (8, 8, 1)
    (tmp_path / "notes.txt").write_bytes(data)
    with pytest.raises(ImageError, match=r"^\.txt is not an image format"):
        decode(tmp_path / "notes.txt", **FORM)
    with pytest.raises(ImageError, match=r"^No such file or directory$"):
        decode(tmp_path / "gone.png", **FORM)
