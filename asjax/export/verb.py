"""`asjax export`: a model for other programs: ONNX, StableHLO, or its authors' torch code.

Every file is checked: an ONNX or StableHLO file is run and compared with jax before it gets its
name. A torch file has the weights bit for bit.
"""

from __future__ import annotations

import shlex

from asjax.config import TRUST, AsjaxError, trust_named
from asjax.weights import hub

_MORE = """more examples:
  asjax export runs/quickstart/model --onnx tagger.onnx --weights int8
  asjax export runs/quickstart/model --stablehlo tagger.stablehlo
  asjax export runs/quickstart/model --safetensors cnn.safetensors
  asjax tag dog.wav --model tagger.onnx                               without jax"""


def add_arguments(parser):
    parser.epilog = f"{parser.epilog}\n\n{_MORE}"
    parser.add_argument("model", metavar="DIR", help="model folder, or workdir of a finished run")
    form = parser.add_argument_group("what to write").add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--onnx",
        metavar="FILE",
        help="wave -> logits, embedding and scores in time, with the log-mel inside and the class "
        'names in its metadata; needs pip install "asjax[onnx]"',
    )
    form.add_argument(
        "--stablehlo",
        metavar="FILE",
        help="the same program for cpu, cuda and tpu, by jax.export; for jax of the next months, "
        "not for archives",
    )
    form.add_argument(
        "--safetensors",
        metavar="FILE",
        help="the weights alone, in the format of the authors' torch code",
    )
    parser.add_argument(
        "--weights",
        choices=("float32", "float16", "int8"),
        help="of ONNX: how weights are stored (default float32); the arithmetic stays float32",
    )
    parser.add_argument(
        "--length",
        choices=("dynamic", "clip"),
        help="of ONNX: waves of any length (default), as far as the model allows, or only of the "
        "model's clip length",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--trust", **TRUST)


def main(args) -> int:
    trust_named(args.trust)
    for name in ("weights", "length"):
        if getattr(args, name) and not args.onnx:
            raise AsjaxError(f"--{name} is for --onnx")
    for name in ("onnx", "stablehlo", "safetensors"):
        if getattr(args, name) == "":
            raise AsjaxError(f"--{name} must be the name of a file, got an empty one")
    args.model = hub.resolve(args.model)
    if args.safetensors:
        return _safetensors(args)
    from asjax import devices

    devices.setup()
    return _onnx(args) if args.onnx else _stablehlo(args)


def _onnx(args) -> int:
    from asjax.export.onnx_file import to_onnx

    weights, length = args.weights or "float32", args.length or "dynamic"
    done = to_onnx(args.model, args.onnx, weights=weights, length=length, overwrite=args.overwrite)
    size = f"{done['bytes'] / 1e6:.2f} MB, {done['nodes']} nodes"
    print(f"written   {args.onnx}: {size}, opset {done['opset']}, weights {weights}")
    print(f"input     wave [b, s] float32, {_length(done)}")
    _told(done)
    print(f"use it    asjax tag FILE --model {shlex.quote(args.onnx)}")
    return 0


def _length(done: dict) -> str:
    least, most = done["least"], done["most"]
    if least == most:
        return f"s is {least:,} samples"
    return f"s from {least:,} samples" + (f" to {most:,}" if most else "")


def _told(done: dict) -> None:
    if done["why"]:
        print(f"length    limited: {done['why']}")
    if done["dtype"] != "float32":
        print(f"computes  in float32; in the folder the model computes in {done['dtype']}, so a")
        print("          tagger of the folder gives slightly other numbers than the file")
    for name, (largest, relative) in done["errors"].items():
        print(f"checked   {name}: max abs {largest:.1e}, relative L2 {relative:.1e} against jax")


def _stablehlo(args) -> int:
    from asjax.export.stablehlo import to_stablehlo

    done = to_stablehlo(args.model, args.stablehlo, overwrite=args.overwrite)
    platforms = ", ".join(done["platforms"])
    print(f"written   {args.stablehlo}: {done['bytes'] / 1e6:.2f} MB for {platforms}")
    print(f"input     wave [b, s] float32, {_length(done)}")
    _told(done)
    print("use it    jax.export.deserialize(bytearray(open(FILE, 'rb').read())).call(wave)")
    return 0


def _safetensors(args) -> int:
    from asjax.weights.export import export

    done = export(args.model, args.safetensors, overwrite=args.overwrite)
    arrays = done["arrays"].values()
    numbers = sum(int(a.size) for a in arrays)
    print(f"model     {done['family']} {done['variant']}")
    print(f"written   {args.safetensors}: {len(done['arrays'])} arrays, {numbers:,} numbers")
    if done["made"]:
        print(f"generated {len(done['made'])} untrained entries: {done['made'][0]}, ...")
    if done["missing"]:
        print(
            f"missing   {', '.join(done['missing'])}: the authors' code may have these entries, "
            "but does not use them; load with strict=False"
        )
    if done["lost"]:
        print(f"not in it {', '.join(what for what, _ in done['lost'])}: weights cannot say them")
    if options := " ".join(option for _, option in done["lost"] if option):
        print(f"restore   asjax port {shlex.quote(args.safetensors)} {options} --to DIR")
    if ("softmax", "") in done["lost"]:
        print(
            "          asjax port makes models with a sigmoid per class, so keep the model folder"
        )
    print(f"load it   model.load_state_dict(safetensors.torch.load_file({args.safetensors!r}))")
    return 0
