"""Pieces of HTML. Text is escaped here; what is called `html` or `body` is HTML already."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

# Pictures whose images are wider are photographs: as PNG they would take megabytes.
LARGEST_PNG = 64


def section(title: str, body: str, note: str = "") -> str:
    lead = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{body}</section>"


def details(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def figure(source: str, alt: str, caption: str = "", css: str = "") -> str:
    """An image by its data URI, with an optional caption below."""
    name = f' class="{css}"' if css else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure{name}><img src="{source}" alt="{escape(alt)}">{below}</figure>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], css: str = "") -> str:
    """A table whose cells are text; the first of each row is its heading."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = []
    for first, *others in rows:
        cells = "".join(
            f'<td data-head="{escape(name)}">{escape(cell)}</td>'
            for name, cell in zip(head[1:], others, strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return (
        f'<table class="{css}"><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and values."""
    items = (f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in pairs)
    return f'<dl class="facts">{"".join(items)}</dl>'


def rows_picture(source: str, alt: str, names: Sequence[str]) -> str:
    """A picture of rows with a name before each; the rows are equally high."""
    labels = "".join(f"<span>{escape(name)}</span>" for name in names)
    return (
        f'<div class="rows"><div class="names" aria-hidden="true">{labels}</div>'
        f'<img src="{source}" alt="{escape(alt)}"></div>'
    )


def svg_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def image_uri(picture: np.ndarray, image_size: int) -> str:
    """uint8 (H, W, 1 or 3), made of images of `image_size` pixels, as a data URI."""
    from PIL import Image

    image = Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)
    buffer = io.BytesIO()
    if image_size <= LARGEST_PNG:
        image.save(buffer, format="PNG")
        kind = "png"
    else:
        image.save(buffer, format="JPEG", quality=90)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
