from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipeline.datasets.folder import Folder, open_folder
from pipeline.datasets.images import decode
from pipeline.errors import UserError

from .small_data import FORM, write_image


def rows(source: Folder) -> list[tuple[str, int | None, str | None]]:
    return [(record.name, record.label, record.split) for record in source.records()]


def opened(path: Path) -> Folder:
    return open_folder(path, path)


def test_class_folders(tmp_path: Path) -> None:
    for name in ("dog/b.png", "cat/a.jpg", "dog/deep/er/c.bmp"):
        write_image(tmp_path / name, 0)
    source = opened(tmp_path)
    assert source.class_names == ["cat", "dog"]
    assert rows(source) == [
        ("cat/a.jpg", 0, None),
        ("dog/b.png", 1, None),
        ("dog/deep/er/c.bmp", 1, None),
    ]
    assert len(source) == 3
    assert decode(next(source.records()).payload, **FORM).shape == (8, 8, 1)


def test_a_class_may_be_a_link_but_links_below_it_are_not_followed(tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere/a.png", 0)
    write_image(tmp_path / "images/dog/b.png", 0)
    (tmp_path / "images/cat").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "images/dog/round").symlink_to(tmp_path / "images", target_is_directory=True)
    assert rows(opened(tmp_path / "images")) == [("cat/a.png", 0, None), ("dog/b.png", 1, None)]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for name in ("b.png", "a.webp"):
        write_image(tmp_path / name, 0)
    source = opened(tmp_path)
    assert source.class_names is None
    assert rows(source) == [("a.webp", None, None), ("b.png", None, None)]


def test_split_folders_over_class_folders(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/2.png", "validation/cat/3.png", "test/dog/4.png"):
        write_image(tmp_path / name, 0)
    source = opened(tmp_path)
    assert source.class_names == ["cat", "dog"]
    assert rows(source) == [
        ("test/dog/4.png", 1, "test"),
        ("train/cat/1.png", 0, "train"),
        ("train/dog/2.png", 1, "train"),
        ("validation/cat/3.png", 0, "val"),
    ]


def test_split_folders_over_flat_images(tmp_path: Path) -> None:
    for name in ("train/1.png", "test/2.png"):
        write_image(tmp_path / name, 0)
    assert rows(opened(tmp_path)) == [("test/2.png", None, "test"), ("train/1.png", None, "train")]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus/1.png", "train/2.png"):
        write_image(tmp_path / name, 0)
    assert opened(tmp_path).class_names == ["bus", "train"]


def test_a_lone_wrapping_folder_is_entered(tmp_path: Path) -> None:
    for name in ("photos/cat/1.png", "photos/dog/2.png"):
        write_image(tmp_path / name, 0)
    (tmp_path / "photos.dvc").write_text("outs:")
    (tmp_path / ".gitkeep").touch()
    assert rows(opened(tmp_path)) == [("cat/1.png", 0, None), ("dog/2.png", 1, None)]


def test_hidden_files_and_litter_are_passed_over_but_other_files_are_records(
    tmp_path: Path,
) -> None:
    for name in ("a/1.png", "b/2.png"):
        write_image(tmp_path / name, 0)
    for name in ("a/.DS_Store", "a/Thumbs.db", ".gitignore", "a/1.png.dvc", "b/notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "__MACOSX").mkdir()
    assert [name for name, _, _ in rows(opened(tmp_path))] == ["a/1.png", "b/2.png", "b/notes.txt"]


@pytest.mark.parametrize("content", [[], [".gitkeep"], ["notes.txt"]])
def test_a_folder_without_an_image_is_named(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="has no image") as caught:
        opened(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_class_folder_without_an_image_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "cat/1.png", 0)
    write_image(tmp_path / "cow/1.png", 0)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog/readme.txt").touch()
    with pytest.raises(UserError, match=r"dog has no image"):
        opened(tmp_path)


def test_layouts_that_could_mean_two_things_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a/cat/1.png", 0)
    write_image(tmp_path / "a/2.png", 0)
    with pytest.raises(UserError, match=r"both images .* and folders"):
        opened(tmp_path / "a")
    for name in ("train/1.png", "test/2.png", "extra/3.png"):
        write_image(tmp_path / "b" / name, 0)
    with pytest.raises(UserError, match=r"split folders \(test, train\) beside other"):
        opened(tmp_path / "b")
    for name in ("train/1.png", "val/2.png", "valid/3.png"):
        write_image(tmp_path / "c" / name, 0)
    with pytest.raises(UserError, match="two folders for the split val"):
        opened(tmp_path / "c")


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere/1.png", 0)
    write_image(tmp_path / "data/dog/2.png", 0)
    (tmp_path / "data/cat").symlink_to(tmp_path / "elsewhere")
    assert rows(opened(tmp_path / "data")) == [("cat/1.png", 0, None), ("dog/2.png", 1, None)]


def test_every_format_that_pillow_writes_and_reads_is_taken(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (200, 10, 10))
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm", "tga", "ico", "pcx", "jp2"):
        image.save(tmp_path / f"image.{suffix}")
    for record in opened(tmp_path).records():
        pixels = decode(record.payload, **{**FORM, "channels": 3})
        assert abs(pixels.astype(int) - [200, 10, 10]).max() < 8, record.name
