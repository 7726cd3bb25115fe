"""Generators and discriminators by name."""

from __future__ import annotations

from pipeline.networks import dcgan, mlp

# name -> (generator, discriminator)
NETWORKS = {
    "dcgan": (dcgan.Generator, dcgan.Discriminator),
    "mlp": (mlp.Generator, mlp.Discriminator),
}
