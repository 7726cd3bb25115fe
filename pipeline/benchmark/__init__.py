"""The published mode benchmarks, run through the same pipeline as everything else."""
