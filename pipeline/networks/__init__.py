"""Generators and discriminators by name."""

from __future__ import annotations

from pipeline.networks import (
    dcgan,
    mlp,
    pacgan,
    points,
    progressive,
    r3gan,
    resnet,
    stylegan2,
    veegan,
)

# name -> (generator, discriminator)
NETWORKS = {
    "dcgan": (dcgan.Generator, dcgan.Discriminator),
    "mlp": (mlp.Generator, mlp.Discriminator),
    "resnet": (resnet.Generator, resnet.Discriminator),
    "r3gan": (r3gan.Generator, r3gan.Discriminator),
    "stylegan2": (stylegan2.Generator, stylegan2.Discriminator),
    "progressive": (progressive.Generator, progressive.Discriminator),
    "veegan": (veegan.Generator, veegan.Discriminator),
    "points": (points.Generator, points.Discriminator),
    "pacgan": (pacgan.Generator, pacgan.Discriminator),
}
