"""Values of weights: NaN and Inf are counted, integers are refused, tensors of torch are read."""

import numpy as np
import pytest
import torch_writer
from checkpoints import weights

from asjax.__main__ import main
from asjax.config import AsjaxError, AsjaxWarning
from asjax.weights import port


class Fake:
    """A tensor of torch as far as asjax uses it: bfloat16, and it records gradients."""

    def __init__(self, values, floating=True, ready=False):
        self.values, self.floating, self.ready = values, floating, ready
        self.shape = values.shape

    def detach(self):
        return Fake(self.values, self.floating, self.ready)

    cpu = detach

    def is_floating_point(self):
        return self.floating

    def float(self):
        return Fake(self.values, True, True)

    def numpy(self):
        if self.floating and not self.ready:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


@pytest.fixture(scope="module")
def state():
    return weights("cnn", "mini", num_classes=527)


def spoilt(state):
    name, other = [k for k, v in state.items() if v.ndim == 2][0], "bn0.running_mean"
    out = {k: v.copy() for k, v in state.items()}
    out[name].flat[[0, 5, 7]] = np.nan, np.inf, -np.inf
    out[other][2] = np.nan
    return out, (f"{name} (3 of {out[name].size})", f"{other} (1 of {out[other].size})")


def test_numbers_that_are_not_finite_are_counted(state, tmp_path, capsys):
    bad, said = spoilt(state)
    with pytest.warns(AsjaxWarning, match="2 of .* arrays have numbers that are not") as caught:
        port.from_torch("cnn", "mini", bad, num_classes=527)
    assert all(one in str(caught[0].message) for one in said)
    torch_writer.save(bad, tmp_path / "bad.pth")
    capsys.readouterr()
    assert main(["port", str(tmp_path / "bad.pth"), "--to", str(tmp_path / "m")]) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("asjax port: bad.pth: 2 of ")
    assert all(one in err for one in said)


def test_integers_are_no_weights(state):
    name = next(k for k, v in state.items() if v.ndim == 2)
    for kind in (np.int8, np.uint8, np.int64, bool):
        bad = {**state, name: np.ones(state[name].shape, kind)}
        with pytest.raises(AsjaxError, match=f"{name} .* holds {np.dtype(kind)}, not floating"):
            port.from_torch("cnn", "mini", bad, num_classes=527)


def test_tensors_in_memory_have_the_values_of_arrays(state):
    tensors = {k: Fake(v) for k, v in state.items()}
    tensors["bn0.num_batches_tracked"] = Fake(np.array(3), floating=False)
    found = port.match("cnn", "mini", {"state_dict": tensors}, num_classes=527)
    wanted = port.match("cnn", "mini", state, num_classes=527)
    for path, leaf in wanted.arrays.items():
        np.testing.assert_array_equal(np.asarray(found.arrays[path]), np.asarray(leaf))
    name = next(k for k, v in state.items() if v.ndim == 2)
    tensors[name] = Fake(np.ones(state[name].shape, np.int8), floating=False)
    with pytest.raises(AsjaxError, match="holds int8"):
        port.match("cnn", "mini", tensors, num_classes=527)
