"""Prints the README's tables: python bench/run.py [DATA] [--help]; the same as `mastsam bench`, without installing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.evaluation import bench
from mastsam_ros.types import MastsamError


def main() -> int:
    """Exit status: 0 done, 1 a MastsamError, 2 wrong usage."""
    parser = argparse.ArgumentParser(description=bench.__doc__)
    bench.add_arguments(parser)
    try:
        return bench.run(parser.parse_args())
    except MastsamError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
