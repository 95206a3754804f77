"""What tests of this folder compare with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rigid_flow(
    depth: npt.NDArray[np.float32],
    K: npt.NDArray[np.float64],
    T_other_this: npt.NDArray[np.float64],
    K_other: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float32]:
    """(H, W, 2) float32 pixels: where a scene at rest seen in this image appears in the other, minus where it is.

    depth: (H, W) metres, 0 or not finite = none. T_other_this: (4, 4), maps points of this camera to the other.
    NaN where there is no depth or the place is behind the other camera. Flow that differs from this comes
    from things that move on their own, not from parallax.
    """
    depth = np.asarray(depth, np.float32)
    K_other = K if K_other is None else K_other
    height, width = depth.shape
    u, v = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    # Pixel -> homogeneous pixel of the other image, up to the factor z: K' (R K^-1 (u, v, 1) + t / z).
    homography: npt.NDArray[np.float32] = (K_other @ T_other_this[:3, :3] @ np.linalg.inv(K)).astype(np.float32)
    shift: npt.NDArray[np.float32] = (K_other @ T_other_this[:3, 3]).astype(np.float32)
    measured = np.isfinite(depth) & (depth > 0)
    w = np.zeros_like(depth)
    w[measured] = 1 / depth[measured]
    x, y, z = (h[0] * u + (h[1] * v + h[2]) + s * w for h, s in zip(homography, shift, strict=True))
    seen = measured & (z > 1e-6)
    flow = np.full((height, width, 2), np.nan, np.float32)
    flow[..., 0][seen] = (x[seen] / z[seen]) - np.broadcast_to(u, depth.shape)[seen]
    flow[..., 1][seen] = (y[seen] / z[seen]) - np.broadcast_to(v, depth.shape)[seen]
    return flow
