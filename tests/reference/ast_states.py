"""State dicts for AST, filled by rule.py, with the authors', Hugging Face's or a DeiT's names."""

import numpy as np
import rule


def weights(module, *, colours=1, places=None, seed="a", heads=True):
    """A state dict for `module` with the authors' names, filled by rule.py."""
    d, hidden = module.width, int(module.width * module.mlp_ratio)
    places = int(np.prod(module.grid)) if places is None else places
    shapes = {
        "v.cls_token": (1, 1, d),
        "v.dist_token": (1, 1, d),
        "v.pos_embed": (1, 2 + places, d),
        "v.patch_embed.proj.weight": (d, colours, 16, 16),
        "v.patch_embed.proj.bias": (d,),
        "v.norm.weight": (d,),
        "v.norm.bias": (d,),
        "mlp_head.0.weight": (d,),
        "mlp_head.0.bias": (d,),
        "mlp_head.1.weight": (module.num_classes, d),
        "mlp_head.1.bias": (module.num_classes,),
    }
    for i in range(module.depth):
        for name, shape in {
            "norm1": (d,),
            "attn.qkv": (3 * d, d),
            "attn.proj": (d, d),
            "norm2": (d,),
            "mlp.fc1": (hidden, d),
            "mlp.fc2": (d, hidden),
        }.items():
            shapes[f"v.blocks.{i}.{name}.weight"] = shape
            shapes[f"v.blocks.{i}.{name}.bias"] = shape[:1]
    out = {k: rule.param(k, s, "float32", salt=seed) for k, s in shapes.items()}
    return out if heads else {k: v for k, v in out.items() if not k.startswith("mlp_head")}


def deit(module, side=24):
    """Made-up ImageNet weights of the module's width and depth."""
    given = weights(module, colours=3, places=side**2, seed="deit", heads=False)
    given = {k.removeprefix("v."): v for k, v in given.items()}
    heads = {
        f"{h}.{leaf}": np.ones(3) for h in ("head", "head_dist") for leaf in ("weight", "bias")
    }
    return {**given, **heads}


def hugging_face(given, version):
    """The authors' names -> Hugging Face's names."""
    width = given["v.cls_token"].shape[-1]
    layer, (fc1, fc2), proj, qkv = {
        4: (
            "encoder.layer.",
            ("intermediate.dense", "output.dense"),
            "attention.output.dense",
            [f"attention.attention.{n}" for n in ("query", "key", "value")],
        ),
        5: (
            "layers.",
            ("mlp.fc1", "mlp.fc2"),
            "attention.o_proj",
            [f"attention.{n}_proj" for n in "qkv"],
        ),
    }[version]
    out = {}
    for name, value in given.items():
        if ".attn.qkv." in name:
            i, leaf = name.split(".")[2], name.split(".")[-1]
            for n, part in enumerate(qkv):
                key = f"audio_spectrogram_transformer.{layer}{i}.{part}.{leaf}"
                out[key] = value[n * width : (n + 1) * width]
            continue
        for old, new in (
            ("v.pos_embed", "v.embeddings.position_embeddings"),
            ("v.cls_token", "v.embeddings.cls_token"),
            ("v.dist_token", "v.embeddings.distillation_token"),
            ("v.patch_embed.proj", "v.embeddings.patch_embeddings.projection"),
            ("v.norm", "v.layernorm"),
            ("v.blocks.", "v." + layer),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("attn.proj", proj),
            ("mlp.fc1", fc1),
            ("mlp.fc2", fc2),
            ("mlp_head.0", "classifier.layernorm"),
            ("mlp_head.1", "classifier.dense"),
        ):
            name = name.replace(old, new)
        out[name.replace("v.", "audio_spectrogram_transformer.", name.startswith("v."))] = value
    return out
