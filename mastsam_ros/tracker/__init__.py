"""The points tracker: carry, represent, overlap, discover, identify; one file per step."""
