"""What recipes do with mixtures beyond stating them: ramps, caps, notices, annealing pairs, and finding plateaus."""
