"""Published checkpoints of event detectors and of their pre-trained backbones.

PretrainedSED converted the backbones of other authors (its files *_ssl, some *_weak) and trained
the rest. The number of classes follows from a file's shapes; the strong files have 447.
"""

from __future__ import annotations

from asjax.weights.published_row import AUDIOSET, Row

_BACKBONE = "a backbone"
_SED_RELEASE = "https://github.com/fschmid56/PretrainedSED/releases/download/v0.0.1"
# PretrainedSED: start of the file names, variant, prefix of the weights' names, published score of
# the weak stage and of the strong stage. The strong score is the mean of three runs; the file is
# the first run.
_SED = (
    ("ATST-F", "atst_frame_base", "model.atst.", "-", "PSDS1 .458"),
    ("BEATs", "beats_base", "model.model.", "-", "PSDS1 .465"),
    ("fpasst", "fpasst_base", "model.", "mAP .484", "PSDS1 .454"),
    ("M2D", "m2d_base", "model.", "mAP .485", "PSDS1 .463"),
    ("ASIT", "asit_base", "model.", "mAP .498", "PSDS1 .462"),
)
_STRONG = "AudioSet Strong eval (PretrainedSED copy, 407 classes)"


def _sed(file, variant, keys, score, data):
    name, family = file.removesuffix(".pt"), variant.rpartition("_")[0]
    if family == "frame":
        family = "frame_mn"
    return Row(name, family, variant, file, (f"{_SED_RELEASE}/{file}",), score, data, keys=keys)


_SED_WEAK = tuple(
    _sed(f"{name}_weak.pt", variant, keys, weak, AUDIOSET.format("PretrainedSED"))
    for name, variant, keys, weak, _ in _SED
)
_SED_STRONG = (
    *(_sed(f"{name}_strong_1.pt", variant, keys, s, _STRONG) for name, variant, keys, _, s in _SED),
    _sed("frame_mn06_strong_1.pt", "frame_mn06", "model.frame_mn.", "PSDS1 .4081", _STRONG),
    _sed("frame_mn10_strong_1.pt", "frame_mn10", "model.frame_mn.", "PSDS1 .4326", _STRONG),
)

_UNILM = "https://github.com/microsoft/unilm/tree/master/beats"


def _beats(tag, score):
    """Microsoft's files: {cfg, model}. The page's links need a browser.

    Fine-tuned files have their own order of classes, which we read from their `label_dict`.
    """
    file, tuned = f"BEATs_{tag}.pt", "finetuned" in tag
    data = AUDIOSET.format("BEATs") if tuned else _BACKBONE
    keys = "patch_embedding., encoder., predictor." if tuned else "patch_embedding., encoder."
    return Row(
        f"beats_{tag.lower()}", "beats", "beats_base", file, (), score, data, page=_UNILM, keys=keys
    )


_ITERATIONS = ("iter1", "iter2", "iter3", "iter3_plus_AS20K", "iter3_plus_AS2M")
# the paper's scores are for checkpoint 1 of each iteration; checkpoint 2 is used in its ensembles
_BEATS = tuple(
    _beats(f"{iteration}_finetuned_on_AS2M_cpt{i}", score)
    for iteration, first in zip(
        _ITERATIONS, ("mAP .479", "mAP .481", "mAP .480", "-", "mAP .486"), strict=True
    )
    for i, score in ((1, first), (2, "-"))
)

_DRIVE = "https://drive.google.com/file/d/{}/view"
_M2D = "https://github.com/nttcslab/m2d/releases/download/{}/{}.zip"


def _start(
    name, family, variant, file="", page="", keys="", licence="not stated", note="", urls=()
):
    return Row(
        name, family, variant, file, urls, "-", _BACKBONE, licence, page=page, keys=keys, note=note
    )


DETECTORS = (*_SED_WEAK, *_SED_STRONG, *_BEATS)
BACKBONES = (
    *(
        _sed(f"{name}_ssl.pt", variant, keys, "-", _BACKBONE)._replace(
            note="ImageNet DeiT weights; the README calls them fpasst_im.pt"
            if name == "fpasst"
            else ""
        )
        for name, variant, keys, *_ in _SED
    ),
    *(_beats(iteration, "-") for iteration in _ITERATIONS),
    *(
        _start(
            name, "atst_frame", variant, f"{name}.ckpt", _DRIVE.format(drive),
            "model.teacher.encoder. (Lightning)",
        )
        for name, variant, drive in (
            ("atstframe_small", "atst_frame_small", "1xZoOTuxV415icYONYbeFQzgrmJQf4a4B"),
            ("atstframe_base", "atst_frame_base", "1bGJSZWlAIIJ6GL5Id5dW0PTB72DL-QDQ"),
        )
    ),
    _start(
        "atst_as2M", "atst_frame", "atst_frame_base", "atst_as2M.ckpt",
        _DRIVE.format("1_xb0_n3UNbUG_pH1vLHTviLfsaSfCzxz"), "encoder.encoder. (Lightning)",
        note="fine-tuned on AudioSet; its head differs from ours",
    ),
    *(
        _start(
            name, "m2d", "m2d_base", f"{name}.zip", _M2D.format(release, name),
            "bare, or module.ar.runtime.backbone.", "NTT's own (LICENSE.pdf of its repository)",
            "unpack it and give the .pth inside",
        )
        for release, name in (
            ("v0.3.0", "m2d_clap_vit_base-80x1001p16x16-240128_AS-FT_enconly"),
            ("v0.3.0", "m2d_as_vit_base-80x1001p16x16-240213_AS-FT_enconly"),
            ("v0.3.0", "m2d_vit_base-80x1001p16x16-221006-mr7_as_46ab246d"),
            ("v0.1.0", "m2d_clap_vit_base-80x608p16x16-240128"),
            ("v0.1.0", "m2d_as_vit_base-80x608p16x16-240213"),
            ("v0.1.0", "m2d_vit_base-80x608p16x16-221006-mr7"),
            ("v0.1.0", "m2d_vit_base-80x608p16x16-221006-mr6"),
            ("v0.1.0", "m2d_vit_base-80x200p16x4-230529"),
        )
    ),
    _start(
        "asit_as2m", "asit", "asit_base", page=_DRIVE.format("11eaOU40jonpYZ3u_XI-XUSSWclv8qeR7"),
        keys="teacher: backbone.",
    ),
)  # fmt: skip
