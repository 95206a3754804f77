"""Memory that a step frees stays for the next one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PAGES = """
import resource, sys
import numpy as np
from mastsam_ros.allocator import keep_freed_memory

kept = sys.argv[1] == "kept" and keep_freed_memory()

def frame():
    images = [np.ones(1 << 19, np.float32) for _ in range(4)]
    return sum(image[0] for image in images)

frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    frame()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(which: str, **environment: str) -> tuple[str, int]:
    """What `keep_freed_memory` says, and the page faults of twenty times four images of 2 MB."""
    left = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PAGES, which]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env={**left, **environment})
    kept, faults = done.stdout.split()
    return kept, int(faults)


def test_what_is_freed_comes_back_without_page_faults():
    kept, faults = _faults("kept")
    if kept != "True":
        pytest.skip("the C library is not glibc")
    assert faults < 100
    assert _faults("as it is")[1] > 10 * max(faults, 1)


def test_the_environment_has_the_last_word():
    assert _faults("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
