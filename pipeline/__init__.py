"""An experiment-tracked GAN pipeline."""

__version__ = "0.1.0"
