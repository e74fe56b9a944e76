"""One file a section of the recipe: its fields, their units and the rules between them."""
