"""Training clips that stay on the devices: decoded once, int16, and a batch only says which ones.

`data.resident=True` is for sets that fit: ESC-50 at 16 kHz takes 0.8 GB, AudioSet's 20,000 balanced
clips 6.4 GB, and its strong labels 33 GB. Nothing is decoded and no wave is copied during the
training. The draws, labels and augmentations are those without it.

A clip must not be longer than the model's input, because a long one has a random part in each draw.
Up to `MORE` of the input is cut off at the end, and said, because files of 10 s often have a few
samples more. If a recording is no 16-bit PCM at the model's rate, samples are rounded to 16 bits.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np

from asjax.config import AsjaxError, counted, shown
from asjax.data import pcm16
from asjax.data.audio import AudioError
from asjax.data.source import Source

OPS = ("multihot", "strong", "teacher")  # these do not look at the wave
REPLICATED = 0.25  # a set up to this share of a device's memory is on every device
MOST = 0.6  # of the memory of a device
MORE = 0.02  # of the input
_GIB = 2**30


@dataclass(frozen=True, repr=False, eq=False)
class Indexed(Source):
    """A source whose waves are row numbers of a table, int32 [1].

    `bad` are the clips that could not be decoded, with the reason. `lengths`: samples of each clip.
    """

    bad: dict | None = None
    lengths: np.ndarray | None = None
    sample_rate: int = 0

    def __getitem__(self, i) -> dict:
        i = int(i)
        if reason := self.bad.get(i):
            raise AudioError(reason)
        start, stop = self.labels.indptr[i : i + 2]
        example = {
            "id": self.ids[i],
            "labels": self.labels.indices[start:stop].astype(np.int64),
            "wave": np.array([i], np.int32),
        }
        if self.labelled is not None:
            example["labelled"] = float(self.labelled[i])
        if self.events is None:
            return example
        length = self.lengths[i]
        where = {"start_s": 0.0, "whole_s": length / self.sample_rate, "length": np.int32(length)}
        return {**example, "events": self.events[i], **where}


@dataclass(frozen=True, eq=False)
class Table:
    """All waves of a source, int16 [N, S] on the host, and the source of their numbers.

    `exact`: no sample was rounded or cut off. `cut`: clips that lost their end.
    """

    waves: np.ndarray
    source: Indexed
    exact: bool
    cut: int = 0

    @property
    def note(self) -> str:
        size = f"{self.waves.nbytes / _GIB:.2f} GiB"
        cut = f"; {counted(self.cut, 'clip')} cut at the end by at most {MORE:.0%}"
        how = f"int16{'' if self.exact else ', rounded to 16 bits'}{cut if self.cut else ''}"
        return f"{counted(len(self.waves), 'clip')} stay on the devices: {size} of {how}"


def ops_of(ops) -> list:
    """The host ops that are left when waves are in a table. AsjaxError: an op needs the wave."""
    names = [name for name, _ in ops]
    if names[:2] != ["decode", "crop"]:
        raise AsjaxError(
            "data.resident keeps decoded clips, so data.ops must begin with decode | crop, got "
            f"{' | '.join(names)}"
        )
    if keys := ", ".join(getattr(ops[1][1], "keywords", {}).keys() & {"train_s", "loud"}):
        raise AsjaxError(
            f"data.resident cuts clips itself, so crop cannot have {keys}; leave it out, or set "
            "--config.data.resident=False"
        )
    if odd := [name for name in names[2:] if name not in OPS]:
        raise AsjaxError(
            f"data.resident: host op {odd[0]} may need the wave, which is on the devices; leave "
            f"it out, or do it there (augment.wave), or set --config.data.resident=False"
        )
    return list(ops[2:])


def load(source, ops, *, sample_rate: int, clip_s: float, threads: int = 2) -> Table:
    """Decode every clip of a source once, with a progress bar.

    Args:
      ops: the chain of host ops, [(name, function)]; the first is decode.

    Raises:
      AsjaxError: a clip is longer than `clip_s`, clips are parts of recordings, the memory of this
        machine is too small, or a source that asjax does not know.
    """
    from tqdm import tqdm

    if not isinstance(source, Source) or source.begin_s is not None:
        raise AsjaxError(
            f"data.resident needs a source of whole files, and {shown(source.name)} has none; set "
            "--config.data.resident=False"
        )
    size, decode = round(clip_s * sample_rate), ops[0][1]
    need, free = 2 * len(source) * size, _free_memory()
    if need > free:
        raise AsjaxError(
            f"data.resident: {len(source):,} clips of {clip_s:g} s need {need / _GIB:.1f} GiB, and "
            f"{free / _GIB:.1f} GiB are free on this machine; set --config.data.resident=False"
        )
    waves, lengths = np.zeros((len(source), size), np.int16), np.zeros(len(source), np.int64)
    bad: dict[int, str] = {}
    rounded, cut = np.zeros(len(source), bool), np.zeros(len(source), bool)

    def one(i: int) -> None:
        try:
            wave = decode(source[i], np.random.default_rng(0))["wave"]
        except AudioError as error:
            bad[i] = str(error)
            return
        if len(wave) > size * (1 + MORE):
            raise AsjaxError(
                f"data.resident needs clips of at most clip_s = {clip_s:g} s, and "
                f"{shown(source.ids[i])} has {len(wave) / sample_rate:.2f} s; raise "
                "--config.data.clip_s, cut the clips, or set --config.data.resident=False"
            )
        if wave.dtype != np.int16:
            exact, wave = wave * np.float32(32768), pcm16.quantised(wave)
            rounded[i] = not np.array_equal(wave, exact)
        cut[i] = len(wave) > size
        lengths[i] = min(size, len(wave))
        waves[i, : lengths[i]] = wave[:size]

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for _ in tqdm(
            pool.map(one, range(len(source))), total=len(source), unit="clip", disable=None
        ):
            pass
    kept = {f.name: getattr(source, f.name) for f in fields(Source)}
    indexed = Indexed(**kept, bad=bad, lengths=lengths, sample_rate=sample_rate)
    return Table(waves, indexed, not (rounded | cut).any(), int(cut.sum()))


def _free_memory() -> int:
    """Bytes that programs can still take on this machine; a large number if that is not known."""
    try:
        with open("/proc/meminfo") as file:
            found = dict(line.split(":") for line in file)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not on Linux
        return 1 << 60


# ----------------------------------------------------------------------------------- on devices


def placed(waves: np.ndarray, mesh):
    """The table as a global array: on every device, or split by rows if it is large.

    Raises:
      AsjaxError: the devices are too small for it.
    """
    import jax

    from asjax import sharding

    limit = _limit(mesh.local_devices[0])
    whole = waves.nbytes <= REPLICATED * limit
    share = waves.nbytes if whole else -(-waves.nbytes // mesh.size)
    if share > MOST * limit:
        raise AsjaxError(
            f"data.resident: {waves.nbytes / _GIB:.1f} GiB do not fit into {mesh.size} devices of "
            f"{limit / _GIB:.1f} GiB beside the model; set --config.data.resident=False"
        )
    where = sharding.replicated(mesh) if whole else sharding.batch_sharding(mesh)
    if not whole:
        waves = np.pad(waves, ((0, -len(waves) % mesh.size), (0, 0)))
    return jax.make_array_from_callback(waves.shape, where, lambda part: waves[part])


def _limit(device) -> float:
    """Bytes of memory of a device. Devices on a CPU share the memory of the machine."""
    import jax

    try:
        found = (device.memory_stats() or {}).get("bytes_limit")
    except Exception:  # a backend without statistics
        found = None
    return found or (_free_memory() / max(1, jax.local_device_count()))


def reading(step, mesh, table):
    """A training step that takes its waves from `batch["table"]`, by the numbers in `wave`.

    `table`: as from `placed`.
    """
    import jax
    from jax.sharding import PartitionSpec

    axes, whole = tuple(mesh.axis_names), table.sharding.is_fully_replicated

    def of_all(part, numbers):
        """Rows of a table that is split over the devices: each gives the rows that it has."""
        rows = part.shape[0]
        wanted = jax.lax.all_gather(numbers, axes, tiled=True) - rows * jax.lax.axis_index(axes)
        mine = (wanted >= 0) & (wanted < rows)
        found = part[wanted.clip(0, rows - 1)] * mine[:, None].astype(part.dtype)
        return jax.lax.psum_scatter(found, axes, scatter_dimension=0, tiled=True)

    split = PartitionSpec(axes)
    from_parts = jax.shard_map(of_all, mesh=mesh, in_specs=(split, split), out_specs=split)

    def train_step(state, batch, frozen=None):
        batch = dict(batch)
        table, numbers = batch.pop("table"), batch["wave"][:, 0]
        rows = table[numbers] if whole else from_parts(table, numbers)
        return step(state, {**batch, "wave": rows}, frozen)

    return train_step
