"""The points tracker: carry, represent, choose, filter overlaps, discover, identify; one file per step."""
