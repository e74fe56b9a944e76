"""Filters measure documents and store what they measured; thresholds on it decide afterwards which documents go."""
