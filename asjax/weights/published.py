"""The table of published checkpoints of our models.

`asjax port NAME` fetches and converts one, `asjax models --published` lists all. Scores are the
authors' own, on their copy of the evaluation set; "-" means no score. These copies differ because
videos vanish: the HLP paper still had 19,393 of 20,371 clips. So scores of two authors are only
roughly comparable. Licences are those that the authors state for the weights, or "not stated",
because a repository's licence covers its code. Hashes are those of the published files, if known.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from asjax.config import nearest
from asjax.weights.published_detectors import BACKBONES, DETECTORS
from asjax.weights.published_row import AUDIOSET, Row


def find(name: str) -> Row | None:
    """The row with this name, or None."""
    return next((row for row in (*ROWS, *STARTS) if row.name == name), None)


def by_file(name: str) -> Row | None:
    """The row with this file name, or None; wget's "%3D" and "?download=1" are removed."""
    name = unquote(name).partition("?")[0]
    return next((row for row in (*ROWS, *STARTS) if row.file == name), None)


def by_hub(repo: str) -> Row | None:
    """The row with this Hub id, or None."""
    return next((row for row in ROWS if row.hub == repo.partition("@")[0]), None)


def near(name) -> str:
    """`"; did you mean the published checkpoint 'x'?"` for a bare word that is much like one.

    "" for paths, for files and for words that are like no name.
    """
    word = str(name)
    if Path(word).name != word or Path(word).suffix:
        return ""
    hint = nearest(word, {name for row in ROWS for name in (row.name, row.variant)})
    return hint.replace("did you mean", "did you mean the published checkpoint")


def rows() -> list[dict]:
    """The table as plain dicts: first taggers, then backbones to train from."""
    listed = (*ROWS, *(row for row in STARTS if row.source == "backbone"))
    return [dict(row._asdict(), urls=list(row.urls)) for row in listed]


def table(listed: list[dict] | None = None) -> str:
    """The table as text: name, model, score, evaluation set, licence, kind of hash."""
    head = ("name", "model", "score", "evaluation set", "licence of the weights", "hash")
    lines = [head]
    for row in rows() if listed is None else listed:
        proof = "sha256" if row["sha256"] else "md5" if row["md5"] else "-"
        model = f"{row['family']} {row['variant']}"
        lines.append((row["name"], model, row["score"], row["data"], row["licence"], proof))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(
        [
            *(line.rstrip() for line in text),
            "",
            "Fetch and convert one: asjax port NAME --to=FOLDER. Scores are the authors' own, on",
            "their copy of the evaluation set. Weights belong to their authors. Backbones have no",
            "score; to train from one, set init_from='backbone:NAME'.",
        ]
    )


# ---------------------------------------------------------------------------------- the table

_ZENODO = "https://zenodo.org/record/{}/files/{}?download=1"


def _zenodo(record: int, file: str) -> str:
    return _ZENODO.format(record, file.replace("=", "%3D"))


def _panns(name, family, variant, file, score, sha256=None, md5=None):
    urls = (_zenodo(3987831, file),)
    data = AUDIOSET.format("PANNs")
    return Row(name, family, variant, file, urls, score, data, sha256=sha256, md5=md5)


_PANNS = (
    _panns(
        "cnn6", "cnn", "cnn6", "Cnn6_mAP=0.343.pth", "mAP .343",
        md5="e25e26b84585b14c7754c91e48efc9be",
    ),
    _panns(
        "cnn10", "cnn", "cnn10", "Cnn10_mAP=0.380.pth", "mAP .380",
        md5="bfb1f1f9968938fa8ef4012b8471f5f6",
    ),
    _panns(
        "cnn14", "cnn", "cnn14", "Cnn14_mAP=0.431.pth", "mAP .431",
        sha256="0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31",
        md5="541141fa2ee191a88f24a3219fff024e",
    ),
    _panns(
        "cnn14_16k", "cnn", "cnn14_16k", "Cnn14_16k_mAP=0.438.pth", "mAP .438",
        sha256="e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
        md5="362fc5ff18f1d6ad2f6d464b45893f2c",
    ),
    _panns("cnn14_8k", "cnn", "cnn14_8k", "Cnn14_8k_mAP=0.416.pth", "mAP .416"),
    _panns(
        "cnn14_decision_max", "cnn", "cnn14_decision_max",
        "Cnn14_DecisionLevelMax_mAP=0.385.pth", "mAP .385",
        sha256="dd3b4043a87d4ec13df8082c0fcfee3fb5084151808e47e060987a95eabdd142",
    ),
    _panns(
        "cnn14_decision_att", "cnn", "cnn14_decision_att",
        "Cnn14_DecisionLevelAtt_mAP=0.425.pth", "mAP .425",
        md5="c8281ca2b9967244b91d557aa941e8ca",
    ),
    _panns(
        "resnet22", "resnet", "resnet22", "ResNet22_mAP=0.430.pth", "mAP .430",
        md5="cf36d413096793c4e15dc752a3abd599",
    ),
    _panns(
        "resnet38", "resnet", "resnet38", "ResNet38_mAP=0.434.pth", "mAP .434",
        md5="bf12f36aaabac4e0855e22d3c3239c1b",
    ),
    _panns(
        "resnet54", "resnet", "resnet54", "ResNet54_mAP=0.429.pth", "mAP .429",
        md5="4f1f1406d37a29e2379916885e18c5f3",
    ),
    _panns(
        "wavegram_logmel_cnn14", "wavegram", "wavegram_logmel_cnn14",
        "Wavegram_Logmel_Cnn14_mAP=0.439.pth", "mAP .439",
        md5="17fa9ab65af3c0eb5ffbc5f65552c4e1",
    ),
)  # fmt: skip


def _convnext(name, file, score, md5, note=""):
    urls = (_zenodo(8020843, file),)
    data = AUDIOSET.format("ConvNeXt")
    return Row(name, "convnext", "tiny", file, urls, score, data, md5=md5, note=note)


_CONVNEXT = (
    _convnext(
        "convnext_tiny_471", "convnext_tiny_471mAP.pth", "mAP .471",
        "e069ecd1c7b880268331119521c549f2",
    ),
    _convnext(
        "convnext_tiny_465", "convnext_tiny_465mAP_BL_AC_70kit.pth", "mAP .465",
        "0688ae503f5893be0b6b71cb92f8b428", "trained without the clips of AudioCaps",
    ),
)  # fmt: skip

_PASST_LICENCE = "Apache-2.0 as far as the training data allow (authors, issue 51)"


def _passt(name, tag, file, score, variant="passt_s", data=None, sha256=None):
    url = f"https://github.com/kkoutini/PaSST/releases/download/{tag}/{file}"
    data = data or AUDIOSET.format("PaSST")
    return Row(name, "passt", variant, file, (url,), score, data, _PASST_LICENCE, sha256)


_V1, _V2, _V3 = (f"v0.0.{i}-audioset" for i in (1, 2, 3))
_PASST = (
    _passt(
        "passt_s_swa_p16_128_ap476", _V1, "passt-s-f128-p16-s10-ap.476-swa.pt", "mAP .476",
        sha256="302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
    ),
    _passt(
        "passt_s_swa_p16_128_ap4761", _V2, "passt-s-f128-p16-s10-ap.4761-swa.pt", "mAP .4761"
    ),
    _passt("passt_s_p16_128_ap472", _V2, "passt-s-f128-p16-s10-ap.472.pt", "mAP .472"),
    _passt("passt_s_p16_s12_128_ap470", _V2, "passt-s-f128-p16-s12-ap.470.pt", "mAP .470"),
    _passt("passt_s_swa_p16_s12_128_ap473", _V2, "passt-s-f128-p16-s12-ap.473-swa.pt", "mAP .473"),
    _passt("passt_s_p16_s14_128_ap469", _V2, "passt-s-f128-p16-s14-ap.469.pt", "mAP .469"),
    _passt("passt_s_swa_p16_s14_128_ap471", _V2, "passt-s-f128-p16-s14-ap.471-swa.pt", "mAP .471"),
    _passt("passt_s_p16_s16_128_ap468", _V2, "passt-s-f128-p16-s16-ap.468.pt", "mAP .468"),
    _passt("passt_s_swa_p16_s16_128_ap473", _V2, "passt-s-f128-p16-s16-ap.473-swa.pt", "mAP .473"),
    _passt(
        "passt_s_swa_f128_stfthop100_p16_s10_ap473", _V3,
        "passt-s-f128-stfthop100-p16-s10-ap.473-swa.pt", "mAP .473", "passt_s_hop100",
    ),
    _passt(
        "passt_s_swa_f128_stfthop160_p16_s10_ap473", _V3,
        "passt-s-f128-stfthop160-p16-s10-ap.473-swa.pt", "mAP .473", "passt_s_hop160",
    ),
    _passt(
        "passt_s_f128_20sec_p16_s10_ap474_swa", "v0.0.5",
        "passt-s-f128-20sec-p16-s10-ap.474-swa.pt", "mAP .474", "passt_s_20s",
    ),
    _passt(
        "passt_s_f128_30sec_p16_s10_ap473_swa", "v0.0.5",
        "passt-s-f128-30sec-p16-s10-ap.473-swa.pt", "mAP .473", "passt_s_30s",
    ),
    _passt("passt_s_kd_p16_128_ap486", "v.0.0.9", "passt-s-kd-ap.486.pt", "mAP .486"),
    _passt("passt_l_kd_p16_128_ap47", "v.0.0.10", "passt-l-kd-ap.47.pt", "mAP .4708", "passt_l"),
    _passt(
        "openmic2008_passt_u_f128_p16_s10_ap85_swa", "v0.0.4-openmic",
        "openmic2008.passt-u-f128-p16-s10-ap.85-swa.pt", "mAP .85", "passt_u", "OpenMIC-2018 test",
    ),
    _passt(
        "openmic2008_passt_u_f128_p16_s10_ap85", "v0.0.4-openmic",
        "openmic2008.passt-u-f128-p16-s10-ap.85.pt", "mAP .85", "passt_u", "OpenMIC-2018 test",
    ),
)  # fmt: skip

_SPEECH_FRONTEND = dict(name="kaldi_fbank128", mean=-6.845978, std=5.5654526, frames=128)


def _ast(name, key, file, score, repo=None, stride=10, data=None, **other):
    """The authors' file and Hugging Face's conversion, which has another epsilon."""
    url = f"https://www.dropbox.com/s/{key}/{file}?dl=1"
    fields = dict(stride=stride, **other.pop("fields", {}))
    data = data or AUDIOSET.format("AST")
    yield Row(name, "ast", "base384", file, (url,), score, data, fields=fields, **other)
    if repo:
        if "frontend" in other:
            other["frontend"] = {**other["frontend"], "name": "kaldi_fbank128_hf"}
        yield Row(
            f"{name}_hf", "ast", "base384_hf", "", (), score, data, "BSD-3-Clause", None, None,
            fields, f"MIT/ast-finetuned-{repo}", **other,
        )  # fmt: skip


_AST = (
    *_ast("ast_10_10_0.4593", "ca0b1v2nlxzyeb4", "audioset_10_10_0.4593.pth", "mAP .4593",
          "audioset-10-10-0.4593"),
    *_ast("ast_10_10_0.4495", "1tv0hovue1bxupk", "audioset_10_10_0.4495.pth", "mAP .4495",
          "audioset-10-10-0.450"),
    *_ast("ast_10_10_0.4483", "6u5sikl4b9wo4u5", "audioset_10_10_0.4483.pth", "mAP .4483",
          "audioset-10-10-0.448"),
    *_ast("ast_10_10_0.4475", "kt6i0v9fvfm1mbq", "audioset_10_10_0.4475.pth", "mAP .4475",
          "audioset-10-10-0.448-v2"),
    *_ast("ast_12_12_0.4467", "snfhx3tizr4nuc8", "audioset_12_12_0.4467.pth", "mAP .4467",
          "audioset-12-12-0.447", 12),
    *_ast("ast_14_14_0.4431", "z18s6pemtnxm4k7", "audioset_14_14_0.4431.pth", "mAP .4431",
          "audioset-14-14-0.443", 14),
    *_ast("ast_16_16_0.4422", "mdsa4t1xmcimia6", "audioset_16_16_0.4422.pth", "mAP .4422",
          "audioset-16-16-0.442", 16),
    *_ast("ast_bal_10_10_0.3499", "u5i5v0bej24l47p", "audioset_bal_10_10_0.3499.pth", "mAP .3499"),
    *_ast("ast_speechcommands_10_10_0.9812", "q0tbqpwv44pquwy",
          "speechcommands_10_10_0.9812.pth", "accuracy .9812", "speech-commands-v2",
          data="Speech Commands V2 test", fields=dict(frames=128), frontend=_SPEECH_FRONTEND,
          clip_s=1.0),
)  # fmt: skip


def _ced(size, file, score):
    urls = tuple(_zenodo(record, file) for record in (8275347, 8275319))
    data = AUDIOSET.format("CED")
    yield Row(f"ced_{size}", "ced", f"ced_{size}", file, urls, score, data)
    repo = f"mispeech/ced-{size}"
    licence = "Apache-2.0"
    yield Row(f"ced_{size}_hf", "ced", f"ced_{size}", "", (), score, data, licence, hub=repo)


_CED = (
    *_ced("tiny", "audiotransformer_tiny_mAP_4814.pt", "mAP .4814"),
    *_ced("mini", "audiotransformer_mini_mAP_4896.pt", "mAP .4896"),
    *_ced("small", "audiotransformer_small_mAP_4958.pt", "mAP .4958"),
    *_ced("base", "audiotransformer_base_mAP_4999.pt", "mAP .4999"),
)


_MN_RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1"


def _mn(name, score, frontend=None, **fields):
    """A row of EfficientAT; the file name consists of name and score."""
    file = f"{name}_mAP_{score}.pt"
    spec = dict(name="mn_mel128", **frontend) if frontend else None
    licence = "MIT (author, issue 44)"
    return Row(
        name, "mobilenet", name[:4], file, (f"{_MN_RELEASE}/{file}",), f"mAP .{score}",
        AUDIOSET.format("EfficientAT"), licence, fields=fields, frontend=spec,
    )  # fmt: skip


_MN = (
    *(
        _mn(f"{width}_as", score)
        for width, score in dict(
            mn01=298, mn02=378, mn04=432, mn05=443, mn10=471, mn20=478, mn30=482, mn40=484
        ).items()
    ),
    _mn("mn40_as_no_im_pre", 483),
    _mn("mn40_as_ext", 487),
    _mn("mn10_as_hop_5", 475, frontend=dict(hop=160)),
    _mn("mn10_as_hop_15", 463, frontend=dict(hop=480)),
    _mn("mn10_as_hop_20", 456, frontend=dict(hop=640)),
    _mn("mn10_as_hop_25", 447, frontend=dict(hop=800)),
    _mn("mn10_as_mels_40", 453, frontend=dict(n_mels=40), n_mels=40),
    _mn("mn10_as_mels_64", 461, frontend=dict(n_mels=64), n_mels=64),
    _mn("mn10_as_mels_256", 474, frontend=dict(n_mels=256), n_mels=256),
    _mn("mn10_as_fc", 465),
    _mn("mn10_as_fc_s2221", 466, strides=(2, 2, 2, 1)),
    _mn("mn10_as_fc_s2211", 466, strides=(2, 2, 1, 1)),
)


def _psla(name, key, file, score):
    url = f"https://www.dropbox.com/s/{key}/{file}?dl=1"
    return Row(name, "efficientnet", "effnet_b2", file, (url,), score, AUDIOSET.format("PSLA"))


_PSLA = (
    _psla("psla_0.440", "d1z27wj30ew5qrs", "as_mdl_0.pth", "mAP .440"),
    _psla("psla_wa_0.444", "ieggie0ara4x26d", "as_mdl_0_wa.pth", "mAP .444"),
)

ROWS: tuple[Row, ...] = (
    *_PANNS, *_CONVNEXT, *_PASST, *_AST, *_CED, *_MN, *_PSLA, *DETECTORS,
)  # fmt: skip


# Not taggers but weights to train from: --config.init_from=imagenet:NAME or backbone:NAME
def _deit(size, digits):
    name = f"deit_{size}"
    file = f"{name}-{digits}.pth"
    urls = (f"https://dl.fbaipublicfiles.com/deit/{file}",)
    return Row(name, "deit", size, file, urls, "-", "ImageNet", sha256=digits)


STARTS: tuple[Row, ...] = (
    _deit("tiny_distilled_patch16_224", "b40b3cf7"),
    _deit("small_distilled_patch16_224", "649709d9"),
    _deit("base_distilled_patch16_224", "df68dfff"),
    _deit("base_distilled_patch16_384", "d0272ac0"),
    *(
        _mn(f"{width}_im", "0")._replace(
            file=f"{width}_im.pt",
            urls=(f"{_MN_RELEASE}/{width}_im.pt",),
            score="-",
            data="ImageNet",
        )
        for width in ("mn01", "mn02", "mn04", "mn05", "mn10", "mn20", "mn30", "mn40")
    ),
    *BACKBONES,
)
