"""The constructors that a file can call check their arguments."""

import pytest

from asjax.weights import torch_values
from asjax.weights.torch_values import Damaged, Global, Inert, Refused, Storage, Tensor


class Machine:
    """Counts the operations."""

    spent = 0

    def spend(self, steps):
        self.spent += steps


def tensor(size, offset, shape, stride, code="f4"):
    storage = Storage("0", code, size * 4)
    return torch_values.MADE["torch._utils._rebuild_tensor_v2"](
        Machine(), storage, offset, shape, stride, False, {}
    )


@pytest.mark.parametrize(
    ("size", "offset", "shape", "stride"),
    [
        (12, 0, (3, 4), (4, 1)),
        (12, 0, (4, 3), (1, 4)),
        (12, 5, (7,), (1,)),
        (12, 3, (2, 3), (3, 2)),
        (1, 0, (), ()),
        (1, 0, (1000, 1000), (0, 0)),
        (4, 4, (0,), (1,)),
    ],
)
def test_a_tensor_inside_its_storage_is_taken_as_it_is(size, offset, shape, stride):
    made = tensor(size, offset, shape, stride)
    assert type(made) is Tensor
    assert (made.offset, made.shape, made.stride, made.code) == (offset, shape, stride, "f4")


@pytest.mark.parametrize(
    ("size", "offset", "shape", "stride"),
    [
        (11, 0, (3, 4), (4, 1)),
        (12, 1, (3, 4), (4, 1)),
        (12, 0, (3, 4), (5, 1)),
        (12, -1, (3,), (1,)),
        (12, 0, (-3,), (1,)),
        (12, 0, (3,), (-1,)),
        (12, 0, (3,), (1, 1)),
        (12, 0, (3.0,), (1,)),
        (12, 0, (2**62, 2**62), (1, 1)),
        (12, 0, (1,) * 40, (1,) * 40),
        (12, 0, [3], (1,)),
    ],
)
def test_a_tensor_that_claims_more_than_its_storage_or_nonsense_is_refused(
    size, offset, shape, stride
):
    with pytest.raises((Damaged, Refused, TypeError, ValueError)):
        tensor(size, offset, shape, stride)


def test_dicts_are_made_of_pairs_and_cost_their_size():
    machine = Machine()
    make = torch_values.MADE["collections.OrderedDict"]
    assert make(machine, [["a", 1], ("b", 2)]) == {"a": 1, "b": 2}
    assert machine.spent == 2
    assert make(machine) == {}
    with pytest.raises(Damaged):
        make(machine, "ab")
    with pytest.raises((Damaged, ValueError)):
        make(machine, [[1, 2, 3]])


def test_keys_that_could_be_slow_to_hash_count_as_themselves_only():
    for key in ("a", b"a", 1, True, None, -(2**59)):
        assert torch_values.safe_key(key) is key or torch_values.safe_key(key) == key
    for key in (10**400, (1, 2), [1], {}, 1.5, frozenset()):
        assert type(torch_values.safe_key(key)) is Inert


def test_getattr_is_for_methods_of_optimisers_and_stays_a_text():
    make = torch_values.MADE["builtins.getattr"]
    made = make(Machine(), Global("torch.optim.lr_scheduler.LambdaLR"), "step")
    assert type(made) is Inert
    for owner in (Global("os"), Inert("x"), {}, "torch.optim.Adam"):
        with pytest.raises(Refused):
            make(Machine(), owner, "system")


def test_texts_of_a_file_are_shown_printable_and_short():
    assert torch_values.shown("a\x1b[31m\n") == r"a\x1b[31m\n"
    assert len(torch_values.shown("x" * 1000)) == 100
    assert torch_values.kind_of(Global("os.system")) == "os.system"
    assert torch_values.kind_of([1]) == "a list"
