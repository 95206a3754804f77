"""Writes trackeval_cases.npz: label sequences and what trackeval 1.3.0 (pip install --no-deps) says about them.

trackeval's requirements clash with this package's (another OpenCV, a newer numpy), so its numbers are kept in a file.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path

import numpy as np

from mastsam_ros.evaluation.overlaps import FrameOverlap, frame_overlap

HERE = Path(__file__).parent
CASES = 6


def in_trackeval_form(overlaps: list[FrameOverlap]) -> dict:
    ids = sorted({int(id) for o in overlaps for id in o.ids})
    instances = sorted({int(i) for o in overlaps for i in o.instances})
    return {
        "num_timesteps": len(overlaps),
        "num_gt_ids": len(instances),
        "num_tracker_ids": len(ids),
        "num_gt_dets": sum(len(o.instances) for o in overlaps),
        "num_tracker_dets": sum(len(o.ids) for o in overlaps),
        "gt_ids": [np.searchsorted(instances, o.instances) for o in overlaps],
        "tracker_ids": [np.searchsorted(ids, o.ids) for o in overlaps],
        "similarity_scores": [o.iou.T for o in overlaps],
    }


def trackeval_figures(overlaps: list[FrameOverlap]) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it lacks and every setting
        import trackeval

        form = in_trackeval_form(overlaps)
        hota = trackeval.metrics.HOTA().eval_sequence(form)
        identity = trackeval.metrics.Identity().eval_sequence(form)
        clear = trackeval.metrics.CLEAR().eval_sequence(form)
    figures = {name: float(np.mean(hota[name])) for name in ("HOTA", "DetA", "DetRe", "AssA", "OWTA")}
    return {**figures, "IDF1": float(identity["IDF1"]), "IDSW": float(clear["IDSW"])}


def main() -> None:
    spec = importlib.util.spec_from_file_location("conftest", HERE / "conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    arrays = {}
    for case in range(CASES):
        predictions, truths = conftest._random_labels(case, frames=20)
        overlaps = [frame_overlap(p, t) for p, t in zip(predictions, truths, strict=True)]
        arrays[f"{case}/predictions"] = np.stack(predictions)
        arrays[f"{case}/truths"] = np.stack(truths)
        for name, value in trackeval_figures(overlaps).items():
            arrays[f"{case}/{name}"] = np.float64(value)
    np.savez_compressed(HERE / "trackeval_cases.npz", **arrays)


if __name__ == "__main__":
    main()
