"""The panels of the page: each a function from the outs to HTML."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline import lineage
from pipeline.metrics import mixture
from pipeline.report import markup, plots, samples, summary
from pipeline.report.outs import Outs
from pipeline.report.samples import Sampler
from pipeline.report.summary import number
from pipeline.scatter import scatter

MOMENTS = 8
CLOSEST = 2
# Samples whose pixels are searched for, and numbers of the training images up to which they are.
PIXEL_SAMPLES, MOST_PIXELS = 1000, 200_000_000
TIMES = "\N{MULTIPLICATION SIGN}"
EVEN = 0.02  # shares that differ by less are equal to the eye


def lead(outs: Outs) -> str:
    """The sentence that says what came out, an alarm of the training before it, and the alarms."""
    told = sentence(outs)
    found = summary.alarms(outs.metrics)
    if outs.blind:
        found.insert(0, summary.blind(outs.blind.text))
    if found:
        items = "".join(f"<li>{markup.escape(line)}</li>" for line in found)
        box = f'<div class="box alarm" role="alert"><strong>Alarm</strong><ul>{items}</ul></div>'
    else:
        where = " in the evaluation" if summary.alarm(outs.events) else ""
        box = (
            f'<p class="box calm">No alarm{where}: the controls passed, and no signal of mode '
            "collapse is beyond its threshold.</p>"
        )
    return f'<p class="lead">{markup.escape(told)}</p>{box}'


def sentence(outs: Outs) -> str:
    """What came out; where the training's alarm sounded, or its figures say little, that first."""
    told = summary.sentence(outs.metrics, presence(outs))
    blind = summary.sentence_case(outs.blind.text) + "." if outs.blind else ""
    return " ".join(text for text in (summary.alarm(outs.events), blind, told) if text)


def presence(outs: Outs) -> str:
    return summary.presence(
        outs.logits,
        outs.data.class_names,
        outs.class_counts,
        outs.metrics["modes"],
        outs.metrics["n_groups"],
    )


def facts(outs: Outs) -> str:
    """What was trained, on what, from which code, for how long."""
    tags, generator = outs.training.tags, outs.model["generator"]
    step = outs.model[f"{outs.checkpoint}_step"]
    dirty = " with uncommitted changes" if tags["git_dirty"] == "true" else ""
    sizes = [f"{len(outs.data.split(name)):,} {name}" for name in ("train", "val", "test")]
    conditional = (
        f"conditional on {outs.model['n_classes']} classes"
        if outs.model["n_classes"]
        else "unconditional"
    )
    form = "points in the plane"
    if not outs.data.points:
        colour = "gray" if outs.data.channels == 1 else "colour"
        form = f"{outs.data.image_size} pixels, {colour}"
    return markup.facts(
        [
            ("Run", outs.training.name),
            ("Checkpoint", f"{outs.checkpoint}: step {step:,}{_kimg(outs, step)}, EMA weights"),
            (
                "Model",
                f"{generator['name']}, latent_dim {generator['latent_dim']}, {conditional}",
            ),
            ("Data", f"{outs.data.name}, {form}"),
            ("Points" if outs.data.points else "Images", ", ".join(sizes)),
            ("Data digest", outs.data.digest[:12]),
            ("Training time", _duration(outs)),
            ("Device", f"{tags.get('device', '?')}, {tags.get('precision', '?')}"),
            ("Commit", tags["git_commit"][:12] + dirty),
            ("train_key", outs.training.key[:12]),
        ]
    )


def figures(outs: Outs) -> str:
    """Every figure with its interval, what reals reach, and what it means."""
    rows = [
        (row.key, row.value, row.interval, row.reals, row.meaning)
        for row in summary.figures(outs.metrics)
    ]
    note = (
        f"{outs.protocol['n_fake']:,} samples against the {outs.protocol['n_real']:,} reals of "
        f"the {outs.protocol['split']} split, which neither the generator nor the choice of its "
        "checkpoint has seen."
    )
    if "custom" in outs.protocol["extractor"]:
        note += (
            " The weights of its Inception are not the standard ones: this fid compares with no "
            "published one."
        )
    head = ("Figure", "Value", "Interval", "Reals, or ideal", "What it says")
    table = markup.table(head, rows, css="figures")
    protocol = [(key, str(value)) for key, value in lineage.flatten(outs.protocol).items()]
    more = markup.details("Protocol: what other numbers must share to be compared with these",
                          markup.table(("Protocol", "Value"), protocol, css="keys"))  # fmt: skip
    return markup.section("Figures", table + more, note)


def uncurated(outs: Outs, sampler: Sampler, per_class: int) -> str:
    """The first samples beside the first test images, in the same layout."""
    reals = outs.data.split("test")
    names = outs.data.class_names or []
    if outs.labels is None or reals.labels is None:
        n = min(per_class * 10, len(outs.features), len(reals))
        fake_rows = _split(np.arange(n), per_class)
        real_rows, labels = fake_rows, []
        what = f"the first {n:,}"
    else:
        by_class = samples.rows_by_class(outs.labels, per_class)
        of_reals = samples.rows_by_class(reals.labels, per_class)
        fake_rows = list(by_class.values())
        real_rows = [of_reals.get(k, np.array([], int)) for k in by_class]
        labels = [names[k] for k in by_class]
        what = f"the first {per_class} of each class"
        if len(names) > len(labels):
            what += f", {len(labels)} of {len(names)} classes"
    fakes = samples.fit(sampler(np.concatenate(fake_rows)))
    cut = np.cumsum([len(row) for row in fake_rows])[:-1]
    size = fakes.shape[1]
    pictures = {
        "Samples, uncurated": np.split(fakes, cut),
        "Real images of the test split": [
            samples.fit(np.asarray(reals.images[row])) if len(row) else fakes[:0]
            for row in real_rows
        ],
    }
    halves = []
    for title, rows in pictures.items():
        uri = markup.image_uri(samples.rows_picture(rows, per_class), size)
        alt = f"{title}: {len(rows)} rows" + (", one class a row" if labels else "")
        body = markup.rows_picture(uri, alt, labels)
        halves.append(f"<div><h3>{title}</h3>{body}</div>")
    note = f"Uncurated: {what}, from seed {outs.seed}, none left out." + _reduced(outs)
    return markup.section("Samples", f'<div class="pair">{"".join(halves)}</div>', note)


def scattered(outs: Outs) -> str:
    """The samples over real points, and both around their nearest modes; nothing of images."""
    if not outs.data.points:
        return ""
    centres, sigma = np.array(outs.data.manifest["centres"]), outs.data.manifest["sigma"]
    fakes = np.asarray(outs.features)
    reals = np.asarray(outs.test_features[: len(fakes)])
    close = []
    for points in (fakes, reals):
        modes, _ = mixture.nearest(points, centres, sigma)
        close.append((points - centres[modes]) / sigma)
    pictures = {
        "Samples": scatter(fakes, reals),
        "All modes laid upon each other": scatter(*close),
    }
    halves = [
        f"<div><h3>{title}</h3>"
        + markup.figure(markup.image_uri(picture, 0), f"{title}: a scatter plot", css="wide")
        + "</div>"
        for title, picture in pictures.items()
    ]
    note = (
        f"{len(fakes):,} samples from seed {outs.seed}, none left out (blue), over as many points "
        "of the test split (gray). On the right each point is seen from its nearest mode; the "
        "frame is that of the reals, and samples beyond it are not of high quality."
    )
    return markup.section("Samples", f'<div class="pair">{"".join(halves)}</div>', note)


def plots_over_time(outs: Outs) -> str:
    """The scatter plots of several moments of the training, and the reals; nothing of images."""
    shown = samples.moments(outs.grids, MOMENTS - 1)
    if not outs.data.points or not shown:
        return ""
    named = [(_kimg(outs, step, "").strip() or f"step {step:,}", path) for step, path in shown]
    tiles = []
    for name, path in [*named, ("real", outs.grids / "reals.png")]:
        picture = samples.shrunk(path, samples.SHOWN_PLOT)
        tiles.append(markup.figure(markup.image_uri(picture, 0), f"Scatter plot: {name}", name))
    note = (
        "The same latent vectors through the averaged generator; kimg counts the thousands of real "
        "points shown so far."
    )
    body = f'<div class="card">{"".join(tiles)}</div>'
    return markup.section("Over time", f'<div class="narrow">{body}</div>', note)


def over_time(outs: Outs) -> str:
    """The same latent vectors at several moments of the training, and reals last."""
    shown = samples.moments(outs.grids, MOMENTS)
    if not shown:
        return ""
    size = outs.data.image_size
    reals = outs.grids / "reals.png"
    strips = [samples.fit(samples.strip(path, size)) for _, path in shown]
    names = [_kimg(outs, step, "").strip() or f"step {step:,}" for step, _ in shown]
    if reals.exists():
        strips.append(samples.fit(samples.strip(reals, size)))
        names.append("real")
    strips = [row[: samples.COLUMNS] for row in strips]
    uri = markup.image_uri(samples.rows_picture(strips, samples.COLUMNS), strips[0].shape[1])
    body = markup.rows_picture(
        uri, f"{len(names)} rows: the samples of ten latent vectors at {', '.join(names)}", names
    )
    note = (
        "Each column is one fixed latent vector through the averaged generator; kimg counts the "
        "thousands of real images shown so far. The last row is real."
    )
    return markup.section("Over time", f'<div class="narrow">{body}</div>', note + _reduced(outs))


def curves(outs: Outs) -> str:
    """Every chart of `plots.CHARTS` that the history has columns for."""
    drawn = []
    for key, chart in plots.CHARTS.items():
        lines, mark = {}, None
        if key == "fd":
            if "fd_floor" in outs.metrics:  # that of a fid is in another space
                lines = {"floor on test": outs.metrics["fd_floor"]}
            mark = _best(outs)
        svg = plots.draw(chart, outs.history, lines=lines, mark=mark, alarms=_alarms(outs))
        if svg is not None:
            names = " and ".join(chart.columns.values())
            alt = f"{chart.title} over kimg: {names}"
            drawn.append(markup.figure(markup.svg_uri(svg), alt, chart.meaning))
    if not drawn:
        return ""
    return markup.section("Training", f'<div class="charts">{"".join(drawn)}</div>')


def _alarms(outs: Outs) -> list[float]:
    """Where, in kimg, the training's alarm sounded."""
    steps = [int(event["step"]) for event in outs.events if event["kind"] == "alarm"]
    steps += [int(event["step"]) for event in outs.events if event["kind"] == "not_finite"]
    kimg = np.interp(steps, outs.history["step"], outs.history["kimg"])
    return sorted(kimg.tolist())


def classes(outs: Outs) -> str:
    """How often each class appears among the samples and in training."""
    names, counts = outs.data.class_names, outs.class_counts
    if names is None or counts is None:
        return ""
    predicted = np.bincount(outs.logits.argmax(axis=1), minlength=len(names))
    fakes, reals = predicted / predicted.sum(), counts / counts.sum()
    ratio = fakes / np.maximum(reals, 1e-12)
    told = np.flatnonzero(counts > 0)
    least, most = told[ratio[told].argmin()], told[ratio[told].argmax()]
    note = (
        "Classes as the extractor sees them in the samples. Most below its share in training: "
        f"{names[least]} ({number(100 * ratio[least], 2)}%), most above: {names[most]} "
        f"({number(100 * ratio[most], 2)}%)."
    )
    if ratio[most] - ratio[least] < EVEN:
        note = "Classes as the extractor sees them in the samples: each has its share."
    svg = plots.class_bars(
        names, 100 * reals, 100 * fakes, label="% of all", of_reals="training data"
    )
    alt = "Share of each class among samples and training data"
    return markup.section("Classes", markup.figure(markup.svg_uri(svg), alt, css="wide"), note)


def per_class(outs: Outs) -> str:
    """Distance of each class's samples to its reals, of a conditional model."""
    rows = outs.per_class
    if not rows:
        return ""
    names = outs.data.class_names or []
    fakes, floors = np.full(len(names), np.nan), np.full(len(names), np.nan)
    for row in rows:
        fakes[row.label], floors[row.label] = row.fd, row.fd_floor
    svg = plots.class_bars(names, floors, fakes, label="fd", of_reals="training images (floor)")
    told = [
        (names[row.label], f"{row.n_fake:,}", f"{row.n_real:,}", number(row.fd),
         number(row.fd_floor), "" if outs.blind else f"{100 * row.accuracy:.1f}%")
        for row in rows
    ]  # fmt: skip
    head = ("Class", "Samples", "Test images", "fd", "Floor", "Seen as this class")
    body = markup.figure(
        markup.svg_uri(svg), "Bars: distance of each class's samples and its floor", css="wide"
    ) + markup.details("Figures of every class", markup.table(head, told))
    note = (
        "Each class's samples against its test images, beside as many training images. A class "
        "has few images, so its distances are large: compare them with the floor."
    )
    return markup.section("Distance per class", body, note)


def neighbours(outs: Outs, sampler: Sampler, shown: int) -> str:
    """Samples beside their nearest training images, in features and in pixels; not of points."""
    if not shown or outs.data.points:
        return ""
    body, note = _beside_nearest(
        outs, sampler, shown, outs.features, outs.train_features, outs.test_features
    )
    train, test = outs.data.split("train").images, outs.data.split("test").images
    pixels = f'<p class="note">In pixels: not shown, as there are {len(train):,} images.</p>'
    if train.size <= MOST_PIXELS:
        first = sampler(np.arange(min(len(outs.features), PIXEL_SAMPLES)))
        flat = (x.reshape(len(x), -1).astype(np.float32) for x in (first, train, test))
        cards, told = _beside_nearest(outs, sampler, shown, *flat)
        pixels = f'<h3>In pixels</h3><p class="note">{told}</p>{cards}'
    why = (
        "A sample (framed) and its nearest training images, with the distance and how many times "
        "the median distance from a test image to its nearest training image that is. Copies would "
        f"stand far below 1{TIMES}. What the audit of copies shows, and what it does not: pixels "
        "see whole images, copied or slightly changed, not shifted, mirrored or recombined ones; "
        "and no such figure proves privacy."
    )
    return markup.section(
        "Nearest training images",
        f'<h3>In the features of the extractor</h3><p class="note">{note}</p>{body}{pixels}',
        why,
    )


def _beside_nearest(
    outs: Outs,
    sampler: Sampler,
    shown: int,
    fakes: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
) -> tuple[str, str]:
    """Cards of samples and their nearest in one space, and what the distances are.

    fakes (n, d) are the first samples; train (N, d), test (M, d).
    """
    fakes = samples.first_rows(fakes, train)
    of_fakes = samples.nearest_distance(fakes, train)
    of_tests = samples.nearest_distance(samples.first_rows(test, train), train)
    scale = max(float(np.median(of_tests)), 1e-12)
    labels = None if outs.labels is None else outs.labels[: len(fakes)]
    plain = samples.one_a_class(labels, shown, len(fakes))
    chosen = np.concatenate([plain, of_fakes.argsort(kind="stable")[:CLOSEST]])
    found, distances = samples.nearest(fakes[chosen], train, min(samples.NEAREST, len(train)))
    pictures = samples.fit(sampler(chosen))
    images = outs.data.split("train").images
    cards = []
    for i, fake in enumerate(pictures):
        title = f"the closest of {len(fakes):,}" if i >= len(plain) else "sample"
        reals = samples.fit(np.stack([images[k] for k in found[i]]))
        tiles = [_tile(fake, "sample", title, "fake")]
        tiles += [
            _tile(real, "training image", f"{number(float(d))}\n{d / scale:.2f}{TIMES}", "")
            for real, d in zip(reals, distances[i], strict=True)
        ]
        cards.append(f'<div class="card">{"".join(tiles)}</div>')
    note = (
        f"The median of the test images is {number(scale)}; of {len(of_fakes):,} samples it is "
        f"{number(float(np.median(of_fakes)))}, the least {number(float(of_fakes.min()))}."
    )
    return f'<div class="cards">{"".join(cards)}</div>', note


def interpolations(outs: Outs, sampler: Sampler, rows: int) -> str:
    """Slerps between latent vectors, a class a row; not of points."""
    if not rows or outs.data.points:
        return ""
    images = samples.fit(sampler.interpolations(rows))
    size = images.shape[1]
    picture = samples.rows_picture(np.split(images, rows), samples.COLUMNS)
    labels = sampler.row_labels(rows)
    names = [] if labels is None else [(outs.data.class_names or [])[k] for k in labels]
    body = markup.rows_picture(
        markup.image_uri(picture, size), f"{rows} rows of interpolated samples", names
    )
    note = (
        "From one latent vector to another on the sphere (slerp)"
        + (", the class of a row fixed" if names else "")
        + ". Smooth changes are good; jumps hint at memorized images, no change at a collapse."
    )
    return markup.section("In between", f'<div class="narrow">{body}</div>', note)


def data(outs: Outs) -> str:
    """What `prepare` refused and found twice."""
    manifest = outs.data.manifest
    doubles = manifest["duplicates"]
    across = sum(doubles["across"].values())
    note = (
        f"{manifest['refused']:,} files refused. Exact duplicates: "
        f"{_counts(doubles['within'], 'within')}; {_counts(doubles['across'], 'across')}."
        + (" Images that train and test share make the figures too good." if across else "")
    )
    rows = [
        (name, f"{split['n']:,}", split["sha256"]) for name, split in manifest["splits"].items()
    ]
    table = markup.table(("Split", "Images", "sha256"), rows, css="keys")
    return markup.section("Data", markup.details("Splits and their hashes", table), note)


def params(outs: Outs) -> str:
    """Every param of the training and of its evaluation, and the full keys."""
    values = {**outs.training.params, **outs.evaluation.params}
    rows = [(key, "" if value is None else str(value)) for key, value in sorted(values.items())]
    origin = [
        ("train_key", outs.training.key),
        ("eval_key", outs.evaluation.key),
        ("data digest", outs.data.digest),
        *((f"{which}.safetensors", digest) for which, digest in outs.model["weights"].items()),
        *sorted(outs.training.tags.items()),
    ]
    body = markup.details("All params", markup.table(("Key", "Value"), rows, css="keys"))
    body += markup.details("Keys, hashes, git", markup.table(("Name", "Value"), origin, css="keys"))
    return markup.section("Where it comes from", body)


def _best(outs: Outs) -> tuple[float, float, str] | None:
    at = np.flatnonzero(outs.history["step"] == outs.model["best_step"])
    scores = outs.history.get("eval_fd")
    if scores is None or not len(at) or not np.isfinite(scores[at[0]]):
        return None
    return float(outs.history["kimg"][at[0]]), float(scores[at[0]]), "best checkpoint"


def _kimg(outs: Outs, step: int, before: str = ", ") -> str:
    at = np.flatnonzero(outs.history["step"] == step)
    return f"{before}{number(float(outs.history['kimg'][at[0]]))} kimg" if len(at) else ""


def _duration(outs: Outs) -> str:
    seconds = round(float(outs.history["seconds"][-1]))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def _reduced(outs: Outs) -> str:
    if outs.data.image_size <= samples.SHOWN_SIZE:
        return ""
    return f" Shown at {samples.SHOWN_SIZE} of {outs.data.image_size} pixels."


def _counts(counts: dict[str, int], how: str) -> str:
    named = [f"{n:,} {how} {name}" for name, n in counts.items() if n]
    return ", ".join(named) or f"none {how} splits"


def _split(positions: np.ndarray, columns: int) -> list[np.ndarray]:
    return [positions[i : i + columns] for i in range(0, len(positions), columns)]


def _tile(image: np.ndarray, alt: str, caption: str, css: str) -> str:
    return markup.figure(markup.image_uri(image, image.shape[0]), alt, caption, css)


def join(parts: Iterable[str]) -> str:
    return "\n".join(part for part in parts if part)
