"""Parameters become named groups, groups an optimizer, steps a learning rate."""
