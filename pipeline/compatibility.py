"""What of params.yaml does not go with the rest: facts of networks and losses, and their rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Params
    from pipeline.datasets.prepared import Prepared

POINTS = ("ring", "grid")  # sources of points in the plane
POINT_NETWORKS = ("points", "pacgan")
IMAGE_NETWORKS = ("dcgan", "mlp", "resnet", "r3gan", "stylegan2", "progressive", "veegan")
OWN_SCALING = ("r3gan", "stylegan2", "progressive")  # networks that scale their weights themselves
BATCH_NORMALISED_D = ("veegan",)
SEES_DEVIATION = ("stylegan2", "progressive")  # whose D has the deviation within a batch anyway
SMOOTHED = ("non_saturating", "minimax", "lsgan")  # losses with a target for reals
CENTRED = ("non_saturating", "minimax", "hinge")  # losses by which D takes logits above 0 for real
UNLABELLED = ("celeba",)


def unfit(params: Params) -> Iterator[str]:
    """What does not belong together: the key, the reason, and what would."""
    yield from _of_data(params)
    yield from _of_recipe(params)


def check_prepared(params: Params, data: Prepared) -> None:
    """Raises Unfit where the prepared data are too few, or the recipe does not go with them.

    Found by the first stage that reads them, not after an extractor has been trained.
    """
    from pipeline.datasets.prepared import Unfit, check_enough

    if params.model.conditional and data.class_names is None:
        raise Unfit(without_labels(data.name))
    for name in ("val", "test"):
        check_enough(int(data.manifest["splits"][name]["n"]))


def without_labels(name: str) -> str:
    """Why a conditional model cannot be trained on the data of that name."""
    return (
        f"model.conditional is true, but {name} has no labels: set it to false, or "
        "`gan preset use dcgan`, a recipe that needs none"
    )


def _of_data(params: Params) -> Iterator[str]:
    """What the data do not go with."""
    if params.model.conditional and params.data.source in UNLABELLED:
        yield without_labels(params.data.source)
    if params.loss.name in ("wgan", "wgan_gp") and params.model.spectral_norm:
        yield (
            f"model.spectral_norm: {params.loss.name} bounds D in its own way, and spectral "
            "normalisation would undo it; set it to false"
            + ("" if params.data.source in POINTS else _whole_recipe(params.loss.name))
        )
    if params.data.path.startswith("~"):
        yield "data.path: DVC takes no ~; give the absolute path"
    if params.data.source in POINTS and params.model.name not in POINT_NETWORKS:
        yield (
            f"model.name: {params.model.name} makes images, and data.source {params.data.source} "
            f"has points; for images set data.source first (`gan preset use default --all` brings "
            f"all shipped values back), for points choose from {list(POINT_NETWORKS)} "
            f"(`gan preset use {params.data.source}` sets all that goes with it)"
        )
    if params.data.source not in POINTS and params.model.name in POINT_NETWORKS:
        yield (
            f"model.name: {params.model.name} makes points, and data.source {params.data.source} "
            f"has images; choose from {list(IMAGE_NETWORKS)}"
        )
    if params.data.source in POINTS and params.evaluate.extractor == "inception":
        yield (
            f"evaluate.extractor: inception sees images, and data.source {params.data.source} "
            "has points; set it to domain"
        )
    if params.data.source in POINTS and params.train.augment:
        yield (
            f"train.augment: it changes images, and data.source {params.data.source} has "
            "points; set it to []"
        )
    if params.model.name == "dcgan" and params.data.image_size not in (28, 32, 64):
        yield (
            "data.image_size: dcgan makes images of 28, 32 or 64 pixels, "
            f"not {params.data.image_size}; choose one of these, or a network of any size: "
            f"{[name for name in IMAGE_NETWORKS if name != 'dcgan']}"
        )


def _of_recipe(params: Params) -> Iterator[str]:
    """What of networks, losses and training does not go together."""
    model, loss, train = params.model, params.loss, params.train
    penalties = {
        "loss.name wgan_gp": loss.name == "wgan_gp",
        "loss.r1_gamma": loss.r1_gamma > 0,
        "loss.r2_gamma": loss.r2_gamma > 0,
        "loss.terms.dragan": "dragan" in loss.terms,
    }
    penalty = next((name for name, used in penalties.items() if used), None)
    if penalty and model.name in BATCH_NORMALISED_D:
        others = [name for name in IMAGE_NETWORKS if name not in BATCH_NORMALISED_D]
        yield (
            f"model.name: D of {model.name} normalises over the batch: its logit has no gradient "
            f"by one image alone, which {penalty} limits; choose from {others} or turn it off"
        )
    if model.spectral_norm and model.name in OWN_SCALING:
        yield (
            f"model.spectral_norm: {model.name} scales its weights in its own way, which spectral "
            f"normalisation would undo; set it to false{_whole_recipe(model.name)}"
        )
    if model.minibatch == "stddev" and model.name in SEES_DEVIATION:
        yield (
            f"model.minibatch: D of {model.name} sees the deviation within a batch anyway; set it "
            "to none"
        )
    if "path_length" in loss.terms and model.name != "stylegan2":
        yield (
            f"loss.terms: path_length is measured from a style to its image, and {model.name} has "
            "no styles; remove it or choose model.name: stylegan2"
        )
    if "label_smoothing" in loss.terms:
        if loss.name not in SMOOTHED:
            yield (
                f"loss.terms: label_smoothing moves a target, and {loss.name} has none; remove it "
                f"or choose loss.name from {list(SMOOTHED)}"
            )
        if loss.terms["label_smoothing"] >= 0.5:
            yield (
                "loss.terms: label_smoothing must be below 0.5, or D's target for reals is no "
                "longer real"
            )
    if "lecam" in loss.terms and loss.name == "rpgan":
        yield (
            "loss.terms: lecam holds logits near their mean, and rpgan leaves the mean free, as "
            "only differences count; remove it or choose another loss.name"
        )
    if params.data.source in POINTS and {"cr", "bcr"} & loss.terms.keys():
        yield "loss.terms: cr and bcr shift images, and points cannot be shifted alike; remove them"
    if train.augment_p == "ada":
        if not train.augment:
            yield (
                "train.augment_p: ada has nothing to adapt; name some in train.augment, or give a "
                "number"
            )
        if loss.name not in CENTRED:
            yield (
                f"train.augment_p: ada goes by the sign of D's logits, which with {loss.name} says "
                f"nothing; give a number or choose loss.name from {list(CENTRED)}"
                + _whole_recipe(loss.name)
            )
    if train.compile and train.deterministic:
        yield (
            "train.compile: what it makes is not held to the same bits on CUDA; set it or "
            "train.deterministic to false"
        )
    if train.devices > 1:
        if train.batch_size % (train.devices * model.pack):
            packs = f" packs of {model.pack}" if model.pack > 1 else ""
            least = train.devices * model.pack
            yield (
                f"train.devices: {train.devices} processes cannot share a batch of "
                f"{train.batch_size}{packs} equally; set train.batch_size to a multiple of {least}"
            )
        if train.device == "mps" or ":" in train.device:
            yield (
                f"train.devices: {train.devices} processes cannot share train.device "
                f"{train.device}; set it to auto, cpu or cuda"
            )
    if model.pack > 1:
        if model.conditional:
            yield "model.pack: a pack has no one class; set model.conditional: false or pack: 1"
        if train.batch_size % model.pack:
            yield (
                f"model.pack: {model.pack} does not divide train.batch_size {train.batch_size}; "
                f"{train.batch_size // model.pack * model.pack} would do"
            )


def _whole_recipe(name: str) -> str:
    """The way out that is one step: of the losses and networks named here each has a preset."""
    return f" (`gan preset use {name}` sets all that goes with it)"
