"""The decoder, in single-device maths only: a model section becomes a `Decoder`, which trains, generates and trades
weights with Hugging Face checkpoints. Parallelism, compilation and recomputation are applied to it from outside."""
