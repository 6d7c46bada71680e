"""Element types equal numpy's and torch's; no name that runs code counts as harmless."""

import numpy as np
import pytest

from asjax.weights import torch_names, torch_values


def test_the_sizes_of_elements_are_those_of_numpy():
    for code, size in torch_names.SIZES.items():
        assert size == (2 if code == "bf16" else np.dtype(code).itemsize)
    assert set(torch_names.STORAGES.values()) <= set(torch_names.SIZES)


def test_names_and_sizes_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for name, code in torch_names.DTYPES.items():
        assert getattr(torch, name).itemsize == torch_names.SIZES[code]
    for name, code in torch_names.STORAGES.items():
        if name != "UntypedStorage":
            dtype = getattr(torch, name).dtype
            assert torch_names.DTYPES[str(dtype).removeprefix("torch.")] == code


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval", "builtins.exec", "builtins.getattr", "builtins.open", "builtins.compile",
        "builtins.__import__", "__builtin__.eval", "os.system", "posix.system", "nt.system",
        "subprocess.Popen", "importlib.import_module", "operator.attrgetter", "runpy.run_path",
        "torch.load", "torch.hub.load", "torch.jit.load", "torch.storage._load_from_bytes",
        "numpy.load", "numpy.lib.npyio.load", "pickle.loads", "builtinsx.dict", "torch.optimx.Adam",
        "omegaconfx.a", "", "torch", "typing",
    ],
)  # fmt: skip
def test_what_could_run_code_or_is_not_known_is_not_harmless(name):
    assert not torch_names.inert(name)
    assert name not in torch_names.TYPES


def test_what_trainers_leave_is_harmless():
    for name in ("torch.optim.adamw.AdamW", "omegaconf.dictconfig.DictConfig", "pathlib.PosixPath"):
        assert torch_names.inert(name)
        assert torch_values.known(name)
    assert not torch_values.known("os.system")
