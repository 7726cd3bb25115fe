from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets.images import decode
from pipeline.datasets.parquet import Parquet, open_parquet
from pipeline.errors import UserError

from .small_data import FORM, encoded, noise, write_image


def write(path: Path, columns: dict, metadata: dict | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata), path, **options)
    return path


def pngs(count: int, seed: int = 0) -> list[bytes]:
    return [encoded(noise(8, 8, seed=seed + i)) for i in range(count)]


def opened(path: Path, **columns: str) -> Parquet:
    return open_parquet(path, path, **columns)


def rows(source: Parquet) -> list[tuple[str, int | None, str | None]]:
    return [(record.name, record.label, record.split) for record in source.records()]


def test_bytes_labels_names_and_splits(tmp_path: Path) -> None:
    images = pngs(4)
    path = write(
        tmp_path / "digits.parquet",
        {
            "image": images,
            "label": pa.array([7, 3, 7, 3], pa.int32()),
            "label_name": ["seven", "three", "seven", "three"],
            "split": ["train", "validation", "test", None],
        },
    )
    source = opened(path)
    assert len(source) == 4
    assert source.class_names == ["three", "seven"]
    assert rows(source) == [
        ("digits.parquet:0", 1, "train"),
        ("digits.parquet:1", 0, "val"),
        ("digits.parquet:2", 1, "test"),
        ("digits.parquet:3", 0, None),
    ]
    assert [record.payload for record in source.records()] == images


def test_string_labels_and_a_path_column(tmp_path: Path) -> None:
    columns = {"image": pngs(3), "label": ["b", "a", "b"], "path": ["x.png", "y.png", "z.png"]}
    source = opened(write(tmp_path / "a.parquet", columns))
    assert source.class_names == ["a", "b"]
    assert rows(source) == [("x.png", 1, None), ("y.png", 0, None), ("z.png", 1, None)]


@pytest.mark.parametrize("labels", [[-1, -1], ["", ""], pa.nulls(2), None])
def test_no_labels(tmp_path: Path, labels: object) -> None:
    columns = {"image": pngs(2)} | ({} if labels is None else {"label": labels})
    source = opened(write(tmp_path / "a.parquet", columns))
    assert source.class_names is None
    assert [label for _, label, _ in rows(source)] == [None, None]


def test_hugging_face_layout(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "dog", "unused"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for name, count in (
        ("train-00000-of-00002", 3),
        ("train-00001-of-00002", 2),
        ("test-00000-of-00001", 2),
    ):
        cells = [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(pngs(count))]
        labels = [i % 2 for i in range(count)]
        write(tmp_path / "data" / f"{name}.parquet", {"image": cells, "label": labels}, metadata)
    source = opened(tmp_path)
    assert source.class_names == ["cat", "dog"]
    assert [split for _, _, split in rows(source)] == ["test"] * 2 + ["train"] * 5
    assert rows(source)[0] == ("0.png", 0, "test")
    assert decode(next(source.records()).payload, **FORM).shape == (8, 8, 1)


def test_splits_from_folder_names(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path / "default" / split / "0000.parquet", {"image": pngs(1)})
    assert [split for _, _, split in rows(opened(tmp_path))] == ["train", "val"]


def test_a_single_file_has_no_split_from_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "test.parquet", {"image": pngs(1)})
    assert rows(opened(path)) == [("test.parquet:0", None, None)]


def test_a_struct_without_bytes_points_to_a_file(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": "a.png"}, None], kind)
    source = opened(write(tmp_path / "x.parquet", {"image": cells}))
    here, nothing = source.records()
    assert decode(here.payload, **FORM).shape == (8, 8, 1)
    assert nothing.payload == b""


def test_other_column_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"img": pngs(2), "fine_label": [0, 1]})
    source = opened(path, image_column="img", label_column="fine_label")
    assert source.class_names == ["0", "1"]


def test_rows_stream_across_row_groups_in_order(tmp_path: Path) -> None:
    images = pngs(50)
    path = write(tmp_path / "a.parquet", {"image": images}, row_group_size=7)
    assert [record.payload for record in opened(path).records()] == images


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    def refused(columns: dict, pattern: str) -> None:
        path = write(tmp_path / "a.parquet", columns)
        with pytest.raises(UserError, match=pattern) as caught:
            list(opened(path).records())
        assert str(path) in str(caught.value)

    refused({"picture": pngs(1), "label": [0]}, "no column 'image'; it has picture, label")
    refused({"image": ["text"]}, "must hold the bytes")
    refused({"image": pngs(1), "label": [0.5]}, "must be integers or strings")
    refused({"image": pngs(1), "split": ["extra"]}, "split 'extra' is unknown")
    two_names = {"image": pngs(2), "label": [0, 0], "label_name": ["a", "b"]}
    refused(two_names, "Give each label one label_name")


def test_no_parquet_inside_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        opened(tmp_path)


def test_damage_behind_the_footer_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": [noise(200, 200).tobytes()] * 3})
    data = bytearray(path.read_bytes())
    data[4:4000] = bytes(3996)
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read as parquet"):
        list(opened(path).records())


SHARED = Path(__file__).parents[3] / "shared" / "data" / "flowers_224.parquet"


@pytest.mark.skipif(not SHARED.is_file(), reason="../shared/data is not here")
def test_real_photos(tmp_path: Path) -> None:
    source = opened(SHARED)
    assert len(source) == 3119
    assert source.class_names == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
    record = next(source.records())
    form = {**FORM, "channels": 3, "image_size": 64}
    assert decode(record.payload, **form).shape == (64, 64, 3)
