"""The parts a layer is made of: each kind's fields, the combinations it refuses, and what it costs, without torch."""
