"""Values are checked where they are made."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.types import Frame, InputError, Matches


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 5), np.uint8), r"\(4, 5\)"),
        (np.zeros((4, 5, 3), np.float32), "float32"),
        (np.zeros((1, 5, 3), np.uint8), "5x1"),
        ([[0]], "list"),
    ],
)
def test_a_frame_says_what_is_wrong_with_its_image(image: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Frame(image)


def test_depth_without_value_is_zero_and_must_fit() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    depth = np.array([[np.nan, np.inf, -1], [0, 1.5, 2]])
    frame = Frame(image, depth=depth)
    assert frame.depth is not None and frame.depth.tolist() == [[0, 0, 0], [0, 1.5, 2]]
    with pytest.raises(InputError, match="3x2"):
        Frame(image, depth=np.zeros((3, 2)))
    with pytest.raises(InputError, match="focal"):
        Frame(image, K=np.zeros((3, 3)))


def test_lengths_of_matches_must_agree() -> None:
    with pytest.raises(InputError, match=r"\(3, 2\)"):
        Matches(np.zeros((3, 2)), np.zeros((2, 2)), np.zeros(3))
