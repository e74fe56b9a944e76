"""Batches become checkpoints and `metrics.jsonl`: one loop, one step function, stages.

It offers hooks and knows none of their owners.
"""
