"""Matrices that resize a row, against torch."""

import numpy as np
import pytest

from asjax.nn import resize

SIZES = [(24, 250), (37, 8), (8, 62), (5, 5), (1, 9), (9, 1), (62, 250), (248, 250), (7, 3)]


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("how", ["bicubic", "linear", "average"])
def test_rows_are_resized_as_torch_resizes_them(how, old, new):
    torch = pytest.importorskip("torch")
    row = torch.randn(3, 1, old, dtype=torch.float64, generator=torch.manual_seed(0))
    if how == "bicubic":
        want = torch.nn.functional.interpolate(row[..., None, :], size=(1, new), mode="bicubic")
        want = want[..., 0, :]
    elif how == "linear":
        want = torch.nn.functional.interpolate(row.float(), size=new, mode="linear")
    else:
        want = torch.nn.functional.adaptive_avg_pool1d(row, new)
    got = row.numpy() @ getattr(resize, how)(old, new).T
    np.testing.assert_allclose(got, want, atol=1e-6 if how == "linear" else 1e-12)


@pytest.mark.parametrize("how", ["bicubic", "linear", "average"])
def test_a_constant_row_stays_constant(how):
    for old, new in SIZES:
        np.testing.assert_allclose(getattr(resize, how)(old, new).sum(1), 1, atol=1e-6)
