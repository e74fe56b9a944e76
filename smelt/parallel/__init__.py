"""A plain decoder and a layout become the same decoder on many devices: data, tensor, sequence, context, expert and
pipeline parallelism, recomputation and compilation, each applied from outside."""
