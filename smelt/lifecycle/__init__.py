"""A recipe becomes its steps in order, keyed by fingerprints of their inputs; finished ones are skipped."""
