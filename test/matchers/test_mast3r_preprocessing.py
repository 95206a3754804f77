"""The way from a camera's pixels to the network's and back, measured on pictures whose content is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mastsam_ros.matchers.mast3r.preprocessing import ImageMapping, network_image, pointmap_on_frame
from mastsam_ros.types import InputError

SIZES = {  # frame (width, height) -> network's image (width, height)
    (640, 480): (512, 384),
    (480, 640): (384, 512),
    (854, 480): (512, 288),
    (700, 500): (512, 352),
    (320, 240): (512, 384),
    (333, 251): (512, 384),
    (600, 600): (512, 384),
    (512, 512): (512, 384),
    (1921, 1081): (512, 288),
}


def _mapping(size: tuple[int, int]) -> ImageMapping:
    return ImageMapping.of_size(*size, long_side=512, patch_size=16)


def _blob(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    x, y = np.arange(size[0]), np.arange(size[1])
    across = np.exp(-(((x - centre[0]) / radius) ** 2) / 2)
    down = np.exp(-(((y - centre[1]) / radius) ** 2) / 2)
    picture = np.round(250 * down[:, None] * across[None, :]).astype(np.uint8)
    return np.repeat(picture[..., None], 3, axis=2)


@pytest.mark.parametrize("size", SIZES)
def test_size_of_the_networks_image(size: tuple[int, int]) -> None:
    mapping = _mapping(size)
    assert (mapping.width, mapping.height) == SIZES[size]
    image = network_image(torch.zeros(size[1], size[0], 3, dtype=torch.uint8), mapping)
    assert image.shape == (1, 3, mapping.height, mapping.width)
    assert (image == -1).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [(0.5, 0.5), (0.231, 0.3517), (0.8, 0.62)])
def test_a_blob_is_where_the_mapping_says(size: tuple[int, int], share: tuple[float, float]) -> None:
    mapping = _mapping(size)
    centre = (share[0] * size[0], share[1] * size[1])
    picture = torch.from_numpy(_blob(size, centre, radius=max(size) / 60))
    weight = (network_image(picture, mapping)[0, 0].double() + 1).clamp(min=0.05) - 0.05
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in weight.shape), indexing="ij")
    found = torch.stack([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    expected = torch.tensor(centre, dtype=torch.float64)
    assert (mapping.to_network(expected) - found).norm() < 0.05
    assert (mapping.to_frame(found) - expected).norm() < 0.1


@pytest.mark.parametrize("size", SIZES)
def test_the_cameras_intrinsics_hold_for_what_comes_back(size: tuple[int, int]) -> None:
    """Points that the network sees along the rays of its pixels lie, at the frame's pixels, on the rays of K."""
    mapping = _mapping(size)
    K = torch.tensor([[0.9 * size[0], 0, 0.48 * size[0]], [0, 0.93 * size[0], 0.53 * size[1]], [0, 0, 1]])
    y, x = torch.meshgrid(torch.arange(mapping.height).float(), torch.arange(mapping.width).float(), indexing="ij")
    pixels = mapping.to_frame(torch.stack([x, y], dim=-1))
    rays = torch.cat([pixels, torch.ones_like(x)[..., None]], dim=-1) @ torch.linalg.inv(K).T
    points, confidence = pointmap_on_frame(rays * (3 + 0.002 * x)[..., None], torch.ones_like(x), mapping)
    seen = points @ K.T
    seen = seen[..., :2] / seen[..., 2:]
    rows, columns = torch.nonzero(confidence > 0, as_tuple=True)
    in_network = mapping.to_network(torch.stack([columns, rows], dim=-1).float())
    within = ((in_network >= 0) & (in_network <= torch.tensor([mapping.width - 1, mapping.height - 1]))).all(dim=1)
    rows, columns = rows[within], columns[within]
    assert len(rows) > 0.5 * size[0] * size[1]
    error = seen[rows, columns] - torch.stack([columns, rows], dim=-1)
    assert error.norm(dim=-1).max() < 0.1


@pytest.mark.parametrize(("size", "shrink"), [((600, 450), True), ((300, 200), False)])
def test_resampling_equals_the_plain_sum_over_the_kernel(size: tuple[int, int], shrink: bool) -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    mapping = _mapping(size)
    actual = (network_image(torch.from_numpy(picture), mapping)[0].numpy() + 1) * 127.5

    def kernel(distance: float) -> float:
        d = abs(distance)
        if shrink:
            return float(np.sinc(d) * np.sinc(d / 3)) if d < 3 else 0.0
        if d < 1:
            return 1.5 * d**3 - 2.5 * d**2 + 1
        return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0

    def line(values: np.ndarray, position: float, step: float) -> np.ndarray:
        spread = max(1.0, step)
        centre = (position + 0.5) * step
        weights = np.array([kernel((j + 0.5 - centre) / spread) for j in range(len(values))])
        return np.clip(np.round(np.tensordot(weights / weights.sum(), values, axes=1)), 0, 255)

    step_x, step_y = size[0] / mapping.resized_width, size[1] / mapping.resized_height
    for x, y in ((0, 0), (100, 50), (511, 200), (257, 311 if mapping.height > 311 else 300)):
        rows = np.stack([line(row.astype(float), x + mapping.left, step_x) for row in picture])
        np.testing.assert_allclose(actual[:, y, x], line(rows, y + mapping.top, step_y), atol=1.01)


def test_a_sliver_is_refused() -> None:
    with pytest.raises(InputError, match="2000x20"):
        _mapping((2000, 20))


@pytest.mark.parametrize("size", [(640, 480), (700, 500), (320, 240), (600, 600)])
def test_pointmap_lies_on_the_frames_pixels(size: tuple[int, int]) -> None:
    """On a slanted plane points are exact, and none hangs between it and a nearer box by more than 2 %."""
    mapping = _mapping(size)
    y, x = torch.meshgrid(
        torch.arange(mapping.height, dtype=torch.float32),
        torch.arange(mapping.width, dtype=torch.float32),
        indexing="ij",
    )
    at = mapping.to_frame(torch.stack([x, y], dim=-1))
    box = (at[..., 0] > 0.4 * size[0]) & (at[..., 0] < 0.6 * size[0])
    points = torch.stack([at[..., 0] / 100, at[..., 1] / 100, 8 + at[..., 0] / 1000], dim=-1)
    points[box] *= 0.5
    result, confidence = pointmap_on_frame(points, torch.full_like(x, 0.7), mapping)
    assert result.shape == (size[1], size[0], 3) and confidence.shape == (size[1], size[0])
    inside = confidence > 0
    assert torch.allclose(confidence[inside], torch.tensor(0.7))
    share = mapping.width * mapping.height / (mapping.resized_width * mapping.resized_height)
    assert abs(inside.float().mean().item() - share) < 0.01
    columns = torch.arange(size[0], dtype=torch.float32)
    plane = (result[..., 2] - (8 + columns / 1000)).abs() < 0.25
    on_box = (result[..., 2] - (4 + columns / 2000)).abs() < 0.25
    assert (plane | on_box)[inside].all()
    rows = torch.arange(size[1], dtype=torch.float32)[:, None].expand(size[1], size[0])
    middle = (
        inside & plane & (rows > 0.2 * size[1]) & (rows < 0.7 * size[1]) & (columns > 2) & (columns < 0.39 * size[0])
    )
    assert (result[..., 0] * 100 - columns)[middle].abs().max() < 0.05
    assert (result[..., 1] * 100 - rows)[middle].abs().max() < 0.05
