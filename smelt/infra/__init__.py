"""The machine: how a recipe is started on one, on many under Slurm or Kubernetes, and kept going. Imports no torch."""
