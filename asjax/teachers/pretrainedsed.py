"""PretrainedSED's ensemble logits: HDF5 with `filenames` [N] bytes, `Y` and the id of a video, and
`strong_logits` float16 [N, 447, 250], 25 frames per second (Zenodo 14626113)."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np

from asjax import labels
from asjax.config import AsjaxError, quoted, shown
from asjax.store import files, hdf5
from asjax.store.logits_writer import Form
from asjax.teachers import names
from asjax.teachers.forms import CLIP_S, Foreign, check_width


def read(paths, label_set, dtype) -> Foreign:
    if len(paths) != 1:
        raise AsjaxError(f"--form pretrainedsed takes one HDF5 file, got {len(paths)}")
    label_set = label_set or labels.get("audioset_strong447")
    with hdf5.opened(paths[0]) as file:
        data = hdf5.dataset(file, "strong_logits", "f", 3)
        count, classes, frames = data.shape
        where = f"{shown(paths[0])}: strong_logits {list(data.shape)}"
        if classes != len(label_set) and frames == len(label_set):
            raise AsjaxError(
                f"{where} must be [clips, classes, frames]; its last two axes are swapped"
            )
        check_width(classes, label_set, where)
        ids = hdf5.names(hdf5.dataset(file, "filenames", "S", 1))
        if len(ids) != count:
            raise AsjaxError(f"{where} has {count} clips, and filenames has {len(ids)}")
        hdf5.blocks(data)
        if not frames or not count:
            raise AsjaxError(f"{where} is empty")

    def blocks():
        with hdf5.opened(paths[0]) as file:
            for start, block in hdf5.blocks(file["strong_logits"]):
                rows = np.arange(start, start + len(block))
                yield rows, {"frames": block.transpose(0, 2, 1)}  # [n, C, T'] -> [n, T', C]

    form = Form(label_set, dtype or "float16", frames=frames, frame_rate=frames / CLIP_S)
    return Foreign(form, ids, blocks)


def write(stored, path: Path) -> None:
    """Write the frame logits of a set as PretrainedSED's HDF5 file. The write is atomic.

    Raises:
      AsjaxError: no frame logits, several views, or two ids that differ only in their ending.
      OSError: the disk has no room. It is looked at first, because HDF5 crashes on a full disk.
    """
    if stored.frames is None or stored.views:
        raise AsjaxError(f"{shown(stored.path)} must have frame logits and one view of each clip")
    ids = [names.stem(clip) for clip in stored.ids]
    hdf5.check_once(ids, f"{shown(stored.path)}: without the ending of the file")
    h5py, (count, frames, classes) = hdf5.module(), stored.frames.shape
    if shutil.disk_usage(Path(path).absolute().parent).free < 2 * count * frames * classes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with files.replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["filenames"] = np.array([name.encode() for name in ids], "S")
        shape = (count, classes, frames)
        out = file.create_dataset("strong_logits", shape, np.float16, chunks=(1, classes, frames))
        for i in range(count):
            with np.errstate(over="ignore"):
                logits = stored.frames[i].T.astype(np.float16)
            if not np.isfinite(logits).all():
                raise AsjaxError(f"logits of clip {quoted(ids[i])} are not finite as float16")
            out[i] = logits
