"""HDF5 files of others: blocks against plain slices, names, and sizes that bytes cannot hold."""

import h5py
import numpy as np
import pytest

from asjax.config import AsjaxError
from asjax.store import hdf5


def test_blocks_of_a_range_are_its_rows(tmp_path):
    numbers = np.arange(700).reshape(100, 7)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("plain", data=numbers)
        file.create_dataset("chunked", data=numbers, chunks=(8, 7))
    with hdf5.opened(tmp_path / "a.h5") as file:
        for name in ("plain", "chunked"):
            data = hdf5.dataset(file, name, "i", 2)
            for begin, end in ((0, None), (13, 57), (90, 200), (5, 5)):
                got = [(start, block) for start, block in hdf5.blocks(data, 600, begin, end)]
                rows = np.concatenate([b for _, b in got]) if got else numbers[:0]
                np.testing.assert_array_equal(rows, numbers[begin:end])
                for start, block in got:
                    np.testing.assert_array_equal(block, numbers[start : start + len(block)])


def test_a_name_may_occur_twice_where_that_is_allowed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["names"] = np.array(["a", "b", "a"], "S4")
    with hdf5.opened(tmp_path / "a.h5") as file:
        data = hdf5.dataset(file, "names", "S", 1)
        assert hdf5.names(data, once=False) == ["a", "b", "a"]
        with pytest.raises(AsjaxError, match="occurs twice"):
            hdf5.names(data)


def test_data_that_were_never_written_are_refused_at_any_ratio(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("hole", (1000, 1000), np.int16, chunks=(10, 1000))
        file.create_dataset("quiet", data=np.zeros((200, 1000), np.int16), compression="gzip")
    with hdf5.opened(tmp_path / "a.h5") as file:
        with pytest.raises(AsjaxError, match="claims"):
            hdf5.dataset(file, "hole", "i", 2, ratio=1 << 40)
        with pytest.raises(AsjaxError, match="claims"):
            hdf5.dataset(file, "quiet", "i", 2)
        assert hdf5.dataset(file, "quiet", "i", 2, ratio=2048).shape == (200, 1000)
