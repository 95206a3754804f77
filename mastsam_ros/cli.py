"""The command `mastsam`: finds the subcommand, runs it, and turns errors into one line and an exit status."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mastsam_ros import __version__
from mastsam_ros.interrupts import interrupts_told
from mastsam_ros.types import MastsamError

COMMANDS = {
    "run": ("mastsam_ros.run", "images, a video or a bag in, labels with lasting ids out"),
    "replay": ("mastsam_ros.replay", "a bag through the step or the real node, into a bag of results"),
    "evaluate": ("mastsam_ros.evaluation.command", "score labels against the truth"),
    "bench": ("mastsam_ros.evaluation.bench", "the tables of figures on data with truth"),
    "weights": ("mastsam_ros.checkpoints.command", "the foundation models' checkpoints: list, fetch, verify"),
    "demo": ("mastsam_ros.demo", "the node on a generated scene, as one HTML page"),
}
"""Name -> module with `add_arguments(parser)` and `run(arguments) -> exit status`, and what it is for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `mastsam` with these arguments (default: the process's).

    Returns 0 done, 1 a MastsamError (told in one line on stderr), 2 wrong usage, 130 interrupted.
    """
    # Cores are shared: threads that spin while they wait make every step slower. Only effective before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parsed = _parser(arguments).parse_args(arguments)
    except SystemExit as end:  # argparse has told what is wrong, or printed the help
        return int(end.code or 0)
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        with interrupts_told():
            return int(import_module(COMMANDS[parsed.command][0]).run(parsed))
    except MastsamError as error:
        sys.stderr.write(f"mastsam: {' '.join(str(error).split())}\n")
        return 1
    except BrokenPipeError:
        # Whoever read the output has had enough (`mastsam … | head`); Python would say so again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write("mastsam: interrupted\n")
        return 130


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    """Only the command that is asked for is imported: others may need what is not installed."""
    parser = argparse.ArgumentParser(
        prog="mastsam", description="Instance masks whose ids stay the same from view to view."
    )
    parser.add_argument("--version", action="version", version=f"mastsam {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (module, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.add_argument("--verbose", action="store_true", help="log more than warnings")
        if name == wanted:
            import_module(module).add_arguments(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
