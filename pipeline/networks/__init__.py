"""Generators and discriminators by name."""

from __future__ import annotations

from pipeline.networks import dcgan, mlp, pacgan, points, veegan

# name -> (generator, discriminator)
NETWORKS = {
    "dcgan": (dcgan.Generator, dcgan.Discriminator),
    "mlp": (mlp.Generator, mlp.Discriminator),
    "veegan": (veegan.Generator, veegan.Discriminator),
    "points": (points.Generator, points.Discriminator),
    "pacgan": (pacgan.Generator, pacgan.Discriminator),
}
