"""What a PNG says of its origin: an XMP packet in an iTXt chunk, which image tools keep and show.

`Iptc4xmpExt:DigitalSourceType` is IPTC's word for what a trained model made. The rest names the
model, the seed and the place in its batch, so that the image can be made again.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, fields
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

KEYWORD = "XML:com.adobe.xmp"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
NAMESPACE = "urn:gan-pipeline:provenance:1"
EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Origin:
    """Where an image came from.

    `model` is the registered version (NAME/VERSION) or empty, `weights` the SHA-256 of the
    generator's file, `run` the MLflow run or, before there is a version, the training's key. The
    image is number `index` (None: a grid of all) of the `n` that `seed`, `label` (empty: none asked
    for) and `truncation` give. `labelling`: without a label classes come in the proportions of the
    `data`, or each in `turn`. `selection`: empty, or `reject` where the discriminator chose.
    `scale`: a grid's enlargement.
    """

    model: str
    weights: str
    run: str
    seed: int
    index: int | None
    n: int
    label: str = ""
    truncation: float = 1.0
    labelling: str = "data"
    selection: str = ""
    scale: int = 1


def xmp(origin: Origin) -> str:
    """The XMP packet."""
    values = {
        field.name: value
        for field in fields(origin)
        if (value := getattr(origin, field.name)) not in ("", None)
    }
    attributes = " ".join(f"gan:{name}={quoteattr(str(value))}" for name, value in values.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" '
        f'xmlns:Iptc4xmpExt="{EXTENSION}" xmlns:gan="{NAMESPACE}" '
        f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}" {attributes}/></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="r"?>'
    )


def png(picture: np.ndarray, origin: Origin) -> bytes:
    """uint8 (H, W, 1 or 3) as a PNG file with the origin in it.

    Pillow takes ten times as long for a small picture as this.
    """
    height, width, channels = picture.shape
    kind = {1: 0, 3: 2}[channels]
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # filter 0 before each row
    rows[:, 1:] = picture.reshape(height, -1)
    text = KEYWORD.encode() + b"\0\0\0\0\0" + xmp(origin).encode()
    return b"".join(
        [
            SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
            _chunk(b"iTXt", text),
            _chunk(b"IDAT", zlib.compress(rows.tobytes())),
            _chunk(b"IEND", b""),
        ]
    )


def parse(packet: str) -> Origin | None:
    """The origin in an XMP packet; None where it is none of ours."""
    try:
        root = ElementTree.fromstring(packet.split("?>", 1)[-1].rsplit("<?", 1)[0])
    except ElementTree.ParseError:
        return None
    found = root.find(f".//{{{RDF}}}Description[@{{{NAMESPACE}}}weights]")
    if found is None:
        return None
    values = {name: found.get(f"{{{NAMESPACE}}}{name}") for name in Origin.__dataclass_fields__}
    index = values["index"]
    return Origin(
        model=values["model"] or "",
        weights=values["weights"] or "",
        run=values["run"] or "",
        seed=int(values["seed"] or 0),
        index=None if index is None else int(index),
        n=int(values["n"] or 1),
        label=values["label"] or "",
        truncation=float(values["truncation"] or 1),
        labelling=values["labelling"] or "data",
        selection=values["selection"] or "",
        scale=int(values["scale"] or 1),
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
