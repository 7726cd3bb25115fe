"""The sections of params.yaml, typed, bounded and documented; `tune` is in tuning/schema.py.

The file itself states every value; there are no defaults here. Only the stages, the command line
and the tests read these classes: functions further in take plain arguments.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

OWN_DATA = ("folder", "parquet", "idx")  # sources that read what `data.path` names
STACKED = "stacked_mnist"
FEWEST_STACKS = 20_000  # or some of the 1,000 classes would have no stack in train

Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Betas = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
Range = tuple[float, float]
Decay = Literal["none", "linear", "cosine", "late"]
OptimizerName = Literal["adam", "adamw", "rmsprop", "sgd"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"
IN_WORDS = {
    NAME: "letters, digits, '_', '.' and '-', with a letter or a digit first",
    DEVICE: "auto, cpu, mps, cuda and cuda:N",
}
Name = Annotated[str, Field(pattern=NAME)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    """Which images, how they are cut to size, and how they are split."""

    source: Literal[
        "mnist5k",
        "mnist",
        "fashion_mnist",
        "kmnist",
        "cifar10",
        "cifar100",
        "svhn",
        "stl10",
        "celeba",
        "folder",
        "parquet",
        "idx",
        "ring",
        "grid",
        "stacked_mnist",
    ] = Field(description="Where the images, or the points of a mode benchmark, come from.")
    name: Name | None = Field(
        description="What runs and models are called after. null: the source's name; "
        "needed for folder, parquet and idx."
    )
    path: Annotated[str, Field(min_length=1)] = Field(
        description="Your own images: a folder, a parquet file, or a folder of idx files."
    )
    draws: Annotated[int, Field(ge=100)] = Field(
        description="ring, grid, stacked_mnist: points or stacks to draw, for all splits together."
    )
    digits: Literal["mnist5k", "mnist"] = Field(
        description="stacked_mnist only: where the digits come from, mnist by download."
    )
    image_size: Annotated[int, Field(ge=8, le=1024)] = Field(
        description="Pixels, square. Points have none: it means nothing to ring and grid, nor do "
        "channels, fit, resize_filter, background and max_refused."
    )
    channels: Literal[1, 3] = Field(description="1: gray, 3: colour.")
    fit: Literal["crop", "pad", "squash"] = Field(
        description="What happens to an image that is not square: centre crop, padding, squashing."
    )
    resize_filter: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = Field(
        description="Pillow's filter, antialiased."
    )
    background: Annotated[int, Field(ge=0, le=255)] = Field(
        description="Gray level behind transparent pixels and padding."
    )
    max_refused: Annotated[float, Field(ge=0, le=1)] = Field(
        description="`prepare` stops when a larger share of the files cannot be read."
    )
    val_fraction: Fraction = Field(
        description="Of all images, or of the training images where a test split is published."
    )
    test_fraction: Fraction = Field(description="Ignored where the source has a test split.")
    split_seed: Seed = Field(description="Decides which image goes to which split.")

    @model_validator(mode="after")
    def _check(self) -> Data:
        if self.source in OWN_DATA and self.name is None:
            raise ValueError(f"name must be given for data.source {self.source!r}")
        if self.source == STACKED and self.channels != 3:
            raise ValueError("channels must be 3 for stacked_mnist: a digit in each")
        if self.source == STACKED and self.draws < FEWEST_STACKS:
            raise ValueError(
                f"draws must be at least {FEWEST_STACKS} for stacked_mnist, or some of its 1,000 "
                f"classes would be missing, not {self.draws}"
            )
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction must leave images to train on")
        return self


class Features(Section):
    """The data set's own feature extractor, by which `fd` is measured."""

    epochs: Count = Field(description="Passes over the train split.")
    batch_size: Count
    lr: Rate = Field(description="Highest rate of the schedule.")
    dim: Annotated[int, Field(ge=8, le=4096)] = Field(
        description="Units of the penultimate layer; dead ones are dropped."
    )
    seed: Seed


class Model(Section):
    """Generator and discriminator."""

    name: Literal[
        "dcgan",
        "mlp",
        "resnet",
        "r3gan",
        "stylegan2",
        "progressive",
        "veegan",
        "points",
        "pacgan",
    ] = Field(description="points, pacgan: of points (ring, grid). The others: of images.")
    latent_dim: Count = Field(description="Numbers in a latent vector, standard normal.")
    conditional: bool = Field(description="Both networks are told the class.")
    width: Annotated[int, Field(ge=4, le=1024)] = Field(
        description="Channels: dcgan, veegan at half the resolution, resnet, r3gan, stylegan2 and "
        "progressive at the image's own. mlp, points, pacgan: units of a hidden layer."
    )
    spectral_norm: bool = Field(description="Spectral normalisation of D (Miyato et al. 2018).")
    init_from: Annotated[str, Field(min_length=1)] | None = Field(
        description="Start from the weights of this folder (models/generator of a training) or of "
        "this model (models:/gan-x@champion). null: from new ones."
    )
    conditioning: Literal["auto", "concat", "projection", "auxiliary"] = Field(
        description="Conditional models: how D learns of the class. auto: the network's own way, "
        "concat of fully connected ones, else projection. auxiliary: D names it (AC-GAN)."
    )
    minibatch: Literal["none", "stddev", "discrimination"] = Field(
        description="Lets D see how alike the samples of a batch are."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="Share of D's last features dropped in training."
    )
    pack: Annotated[int, Field(ge=1, le=16)] = Field(
        description="Samples that D judges together (PacGAN); 1: each by itself."
    )


class Loss(Section):
    """The adversarial loss and the terms added to D's."""

    name: Literal["non_saturating", "minimax", "lsgan", "wgan", "wgan_gp", "hinge", "rpgan"]
    weight_clip: Annotated[float, Field(gt=0)] = Field(
        description="wgan only: D's weights stay in [-weight_clip, weight_clip]."
    )
    gp_weight: Annotated[float, Field(ge=0)] = Field(description="wgan_gp only.")
    r1_gamma: Annotated[float, Field(ge=0)] = Field(
        description="R1 on reals (Mescheder et al. 2018): gamma / 2 times squared gradient; 0: off."
    )
    r2_gamma: Annotated[float, Field(ge=0)] = Field(description="R2: the same on fakes; 0: off.")
    r1_every: Count = Field(
        description="D updates between two R1 and R2 terms, each scaled by this."
    )
    terms: dict[
        Literal[
            "dragan",
            "cr",
            "bcr",
            "lecam",
            "drift",
            "label_smoothing",
            "feature_matching",
            "path_length",
        ],
        Annotated[float, Field(gt=0)],
    ] = Field(description="Further terms of the losses, each with its weight; {}: none.")


class Train(Section):
    """The training loop."""

    steps: Count = Field(description="Generator updates.")
    batch_size: Annotated[int, Field(ge=2)]
    lr_g: Rate = Field(description="Highest rate of G.")
    lr_d: Rate = Field(description="Highest rate of D.")
    lr_decay: Decay = Field(
        description="The rates go to zero at the last step (late: from half of the steps), or stay."
    )
    lr_decay_d: Decay | None = Field(description="The same for D's rate. null: as lr_decay.")
    lr_warmup: Annotated[int, Field(ge=0)] = Field(
        description="Generator updates in which the rates rise from zero."
    )
    optimizer_g: OptimizerName
    optimizer_d: OptimizerName
    betas_g: Betas = Field(
        description="Adam's betas for G. Of rmsprop: momentum and decay. Of sgd: momentum, unused."
    )
    betas_d: Betas = Field(description="The same for D.")
    weight_decay_g: Annotated[float, Field(ge=0, lt=1)]
    weight_decay_d: Annotated[float, Field(ge=0, lt=1)]
    clip_grad: Annotated[float, Field(ge=0)] = Field(
        description="Largest norm of the gradients of D, and of G; 0: any."
    )
    d_steps: Count = Field(description="D updates per round.")
    g_steps: Count = Field(description="G updates per round.")
    augment: list[
        Literal["translation", "cutout", "colour", "flip", "rotation", "scale", "crop"]
    ] = Field(
        description="Of all that D sees, in this order. [translation, cutout, colour] is "
        "DiffAugment; []: none."
    )
    augment_p: Annotated[float, Field(gt=0, le=1)] | Literal["ada"] = Field(
        description="Share of the images that each of `augment` changes. ada: it follows how sure "
        "D is of the reals (Karras et al. 2020)."
    )
    instance_noise: Annotated[float, Field(ge=0)] = Field(
        description="Deviation of the noise on all that D sees, at the start; it falls to zero."
    )
    balance: Literal["fixed", "adaptive"] = Field(
        description="fixed: d_steps, g_steps and rates as given. adaptive: moved, in bounds, by "
        "D's accuracy and its gap on held-out reals."
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="Decay of G's moving average per generator update."
    )
    ema_warmup: Annotated[float, Field(ge=1)] = Field(
        description="At step t the decay is at most (1 + t) / (ema_warmup + t)."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        description="auto: bf16 where the processor or GPU computes in it, else fp32."
    )
    device: Annotated[str, Field(pattern=DEVICE)] = Field(
        description="auto: CUDA, else MPS, else the CPU."
    )
    devices: Annotated[int, Field(ge=1, le=1024)] = Field(
        description="Processes on this machine that share each batch, a GPU each (or cores of the "
        "CPU); several machines through torchrun. Changes no number but by rounding."
    )
    compile: bool = Field(
        description="G and D through torch.compile, where the recipe allows it: faster in long "
        "trainings on CUDA, after a minute of compiling. Changes numbers by rounding alone."
    )
    cuda_graphs: bool = Field(
        description="CUDA: replay updates as graphs, where the recipe allows it. Changes no number."
    )
    deterministic: bool = Field(description="CUDA: bit-identical resume, slower. A CPU always is.")
    checkpoint_every: Count = Field(
        description="Generator updates; a slow training is saved every five minutes besides. "
        "Changes no number."
    )
    eval_every: Count = Field(description="Generator updates between two looks at the samples.")
    eval_samples: Annotated[int, Field(ge=100)] = Field(description="Fakes per look.")
    log_every: Count = Field(description="Generator updates per point of the curves.")
    on_collapse: Literal["log", "stop", "rollback"] = Field(
        description="What a collapse does beside telling. stop: end the training. rollback: go "
        "back to the last healthy look, or the start, with other rates, and another ratio where D "
        "and G are of far different speed; after NaN or inf too."
    )
    max_rollbacks: Count = Field(
        description="After so many a collapse is only told, and NaN or inf ends the training."
    )


class Evaluate(Section):
    """The figures and their protocol."""

    extractor: Literal["domain", "inception"] = Field(
        description="domain: the extractor of the `features` stage; its distance is `fd`. "
        "inception: torch-fidelity's Inception-v3; its distance is `fid`."
    )
    inception_weights: Annotated[str, Field(min_length=1)] | None = Field(
        description="inception only: a file of its weights. null: torch-fidelity's own download."
    )
    checkpoint: Literal["best", "last"] = Field(description="best: lowest fd on val.")
    samples: Annotated[int, Field(ge=100)] = Field(description="Fakes.")
    neighbours: Annotated[int, Field(ge=1, le=50)] = Field(
        description="k of precision, recall, density, coverage."
    )
    bootstraps: Annotated[int, Field(ge=20)] = Field(description="Resamples behind fd's interval.")
    cas: bool = Field(
        description="Conditional models: the classification accuracy score, which takes as long as "
        "the features stage."
    )
    batch_size: Count = Field(description="Changes no number.")
    seed: Seed


class Report(Section):
    """The page."""

    samples_per_class: Annotated[int, Field(ge=1, le=50)]
    neighbours: Annotated[int, Field(ge=0, le=50)] = Field(
        description="Fakes shown beside their nearest training images."
    )
    interpolations: Annotated[int, Field(ge=0, le=20)] = Field(description="Rows of slerps.")


class Tracking(Section):
    """MLflow. Where the store is: MLFLOW_TRACKING_URI, else mlflow.db here."""

    experiment: Annotated[str, Field(min_length=1)]
    upload_every: Annotated[float, Field(gt=0)] = Field(
        description="Seconds between two uploads of curves."
    )


class Gate(Section):
    """What `gan promote` asks of a model; docs/registry.md says how often models pass."""

    better_sds: Annotated[float, Field(ge=0)] = Field(
        description="The distance must be below the champion's by so many deviations."
    )
    coverage: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="The lower bound of what coverage changes by must be above minus this."
    )
    recall: Annotated[float, Field(gt=0, lt=1)] = Field(description="The same of recall.")
    label_kl: Annotated[float, Field(gt=0)] = Field(
        description="label_kl may be this (or twice its sampling floor), whatever the champion's."
    )
    label_kl_margin: Annotated[float, Field(ge=0)] = Field(
        description="What label_kl may exceed the champion's by."
    )
    worst_class_sds: Annotated[float, Field(ge=0)] = Field(
        description="The worst class may be worse than the champion's by so many deviations."
    )
    nearcopy: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="The upper end of nearcopy_rate must be below this; below 10,000 held-out "
        "images, below ten times this."
    )
    ct_z: Annotated[float, Field(lt=0)] = Field(description="ct_z must be above this.")
    mia_tpr1: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="The upper end of mia_tpr1 must be below this; from 10,000 held-out images."
    )


class Registry(Section):
    """The model registry."""

    name: Name | None = Field(description="Registered model. null: gan-<data.name>.")
    gate: Gate
