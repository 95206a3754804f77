"""The table of released checkpoints, the folder they are kept in, and what is known of a file there.

Nothing here reads the network.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mastsam_ros.types import ModelError

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Checkpoint:
    """One released file: its name here, address, size in bytes, licence, and SHA-256 where one is known."""

    name: str
    model: str
    address: str
    size: int
    licence: str
    sha256: str = ""

    @property
    def file_name(self) -> str:
        """The publisher's name of the file."""
        return self.address.rpartition("/")[2]


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM_LICENCE = "Apache-2.0"
_MAST3R_LICENCE = "CC BY-NC-SA 4.0 (non-commercial), and the terms of its training data: github.com/naver/mast3r"

# Meta names SAM's files by the first digits of their MD5; the SHA-256 below belong to files with these MD5. Naver
# publishes no hash: what was fetched first is recorded beside the file and held to from then on.
CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint(
            "mast3r",
            "MASt3R ViT-L, metric",
            "https://download.europe.naverlabs.com/ComputerVision/MASt3R/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric.pth",
            2_754_910_614,
            _MAST3R_LICENCE,
        ),
        Checkpoint(
            "sam_vit_h",
            "Segment Anything ViT-H",
            f"{_SAM}/sam_vit_h_4b8939.pth",
            2_564_550_879,
            _SAM_LICENCE,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        Checkpoint(
            "sam_vit_l",
            "Segment Anything ViT-L",
            f"{_SAM}/sam_vit_l_0b3195.pth",
            1_249_524_607,
            _SAM_LICENCE,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        Checkpoint(
            "sam_vit_b",
            "Segment Anything ViT-B",
            f"{_SAM}/sam_vit_b_01ec64.pth",
            375_042_383,
            _SAM_LICENCE,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
    )
}
"""Name -> checkpoint, in the order in which `mastsam weights list` shows them."""


@dataclass(frozen=True)
class ReleasedFolder:
    """A model of `transformers`, several files under one name on huggingface.co, which its own program fetches."""

    name: str
    model: str
    licence: str

    @property
    def command(self) -> str:
        """What fetches it, resumed and checked; comes with `transformers`."""
        return f"hf download {self.name} --local-dir {self.name.rpartition('/')[2]}"


FOLDERS: dict[str, ReleasedFolder] = {
    folder.name: folder
    for folder in (
        *(
            ReleasedFolder(f"facebook/sam-vit-{size}", f"Segment Anything ViT-{size[0].upper()}", _SAM_LICENCE)
            for size in ("huge", "large", "base")
        ),
        *(
            ReleasedFolder(f"facebook/sam2.1-hiera-{size}", f"SAM 2.1 Hiera, {size}", "Apache-2.0")
            for size in ("large", "base-plus", "small", "tiny")
        ),
        *(
            ReleasedFolder(f"syscv-community/sam-hq-vit-{size}", f"SAM-HQ ViT-{size[0].upper()}", "Apache-2.0")
            for size in ("huge", "large", "base")
        ),
        ReleasedFolder("yonigozlan/EdgeTAM-hf", "EdgeTAM", "Apache-2.0"),
    )
}
"""Name -> folder, as `mastsam weights list` shows them after the checkpoints. Addresses were not tried."""


def checkpoint_named(name: str) -> Checkpoint:
    """The checkpoint of that name. Raises ModelError that lists the names."""
    if name in FOLDERS:
        raise ModelError(f"'{name}' is a folder: run `{FOLDERS[name].command}`, and set sam.checkpoint to the folder")
    if name not in CHECKPOINTS:
        raise ModelError(f"no released checkpoint is called '{name}': there are {', '.join(CHECKPOINTS)}")
    return CHECKPOINTS[name]


def weights_directory(setting: str = "") -> Path:
    """The folder of the setting `weights_directory`, by default $XDG_CACHE_HOME/mastsam_ros (~/.cache/mastsam_ros)."""
    if setting:
        return Path(setting).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "mastsam_ros"


def checkpoint_path(name_or_path: str, directory: Path) -> Path:
    """The file that a `checkpoint` setting means: that of a name in the table, else the path itself.

    Raises ModelError for a name whose file has not been fetched.
    """
    if name_or_path not in CHECKPOINTS:
        return Path(name_or_path).expanduser()
    path = directory / CHECKPOINTS[name_or_path].file_name
    if not path.is_file():
        raise ModelError(f"'{name_or_path}' is not in {directory}: run `mastsam weights fetch {name_or_path}`")
    return path


def is_verified(checkpoint: Checkpoint, directory: Path) -> bool:
    """Whether the file is there, has its size, and was found right when it was fetched; it is not read."""
    path = directory / checkpoint.file_name
    recorded = recorded_sha256(path)
    if not recorded or (checkpoint.sha256 and recorded != checkpoint.sha256):
        return False
    return path.is_file() and path.stat().st_size == checkpoint.size


def verify(checkpoint: Checkpoint, path: Path, progress: Callable[[int], object] = lambda count: None) -> str:
    """Reads the whole file `path` and returns its SHA-256 (64 digits).

    progress: called with the number of bytes read since the last call. Raises ModelError if the size or the hash is
    not the checkpoint's, or not the one recorded beside the file in the weights directory.
    """
    if not path.is_file():
        raise ModelError(f"{path} is not there: run `mastsam weights fetch {checkpoint.name}`")
    if path.stat().st_size != checkpoint.size:
        raise ModelError(
            f"{path} has {path.stat().st_size:,} bytes, {checkpoint.name} has {checkpoint.size:,}: delete it and run"
            f" `mastsam weights fetch {checkpoint.name}`"
        )
    digest = sha256_of(path, progress)
    expected = checkpoint.sha256 or recorded_sha256(path)
    if expected and digest != expected:
        raise ModelError(
            f"{path} has SHA-256 {digest}, expected {expected}: it is damaged or another file; delete it and run"
            f" `mastsam weights fetch {checkpoint.name}`"
        )
    return digest


def sha256_of(path: Path, progress: Callable[[int], object] = lambda count: None) -> str:
    """SHA-256 of a file as 64 hexadecimal digits. Raises ModelError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                progress(len(block))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def record_path(path: Path) -> Path:
    """Where the hash of a verified file is kept, in the form that `sha256sum --check` reads."""
    return path.with_name(f"{path.name}.sha256")


def recorded_sha256(path: Path) -> str:
    """The hash recorded for a file, or '' where none is."""
    try:
        return record_path(path).read_text(encoding="ascii").partition(" ")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""
