"""A linear model on hashed n-grams that learns, from labelled examples, how good a text is."""
