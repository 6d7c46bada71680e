"""The numbers that the papers print. Nothing here is computed; reports mark them as the papers'."""

from __future__ import annotations

# --- Hierarchical Label Propagation

HLP_COLUMNS = {  # key -> (heading, short)
    "labels": ("AudioSet, labels as they are", "AS"),
    "hlp_labels": ("AudioSet, HLP labels", "AS-HLP"),
    "hlp_labels_scores": ("AudioSet, HLP labels and scores", "AS-HLP + scores"),
    "fsd50k": ("FSD50K zero-shot, 192 classes", "FSD50K"),
}


# The paper's Table III, mAP in %: columns as above; trained without (False) and with HLP (True).
HLP_TABLE3 = {
    "CNN6": {False: (30.6, 31.1, 32.8, 31.3), True: (30.4, 34.2, 34.3, 34.3)},
    "ConvNeXt femto": {False: (37.4, 37.7, 37.6, 33.4), True: (36.4, 38.6, 38.5, 34.6)},
    "ConvNeXt nano": {False: (40.1, 41.4, 41.4, 42.3), True: (39.9, 41.2, 41.0, 42.4)},
    "PaSST-B": {False: (45.0, 47.5, 47.6, 51.0), True: (44.9, 47.8, 47.8, 51.6)},
}


HLP_CLIPS = 19_393  # of AudioSet's evaluation set


def hlp_comparable(classes: int, column: str) -> bool:
    """Whether a test set with this number of classes has nearly all of the paper's."""
    return classes >= (180 if column == "fsd50k" else 500)


def hlp_value(model, trained, column) -> float | None:
    """The paper's mAP in %; for `trained=None` the difference, with HLP minus without."""
    if model not in HLP_TABLE3:
        return None
    i = list(HLP_COLUMNS).index(column)
    if trained is None:
        return HLP_TABLE3[model][True][i] - HLP_TABLE3[model][False][i]
    return HLP_TABLE3[model][trained][i]


# --- Dataset balancing can hurt model performance

# Table 2: beta -> imbalance ratio, Gini of the oversampled training set (1,728,000 clips).
BALANCE_TABLE2 = {
    0.0: (18102, 0.83),
    0.1: (8282, 0.79),
    0.2: (4916, 0.75),
    0.3: (2746, 0.71),
    0.5: (1032, 0.63),
    0.7: (443, 0.56),
    1.0: (143, 0.47),
}


# mAP and d' as printed: public evaluation set (16,591 clips) and internal one (39,164 clips,
# unpublished).
BALANCE_RESULTS = {
    "public": {0.0: (0.4210, 2.797), 0.5: (0.4394, 2.849), 1.0: (0.4352, 2.828)},
    "internal": {0.0: (0.3297, 2.797), 0.5: (0.3318, 2.787), 1.0: (0.3249, 2.768)},
}


BALANCE_REGRESSION = "slope not significant (two-sided p > 0.1), mean change +0.0142"


# --- AudioTagging Done Right

LARGE, SMALL = "128 x 1024", "64 x 400"
# Table 2: million parameters; mAP in %, by procedure.
ATDR_TABLE2 = {
    "AST": (87.9, dict(A1=43.0, A2=27.4, A3=41.0, A4=26.8)),
    "Transformer": (28.5, dict(A2=23.0, A4=20.9)),
    "CNN+Transformer": (12.1, dict(A2=43.7, A4=41.1)),
    "Conformer": (88.1, dict(A2=33.5, A4=30.8)),
    "ResNet50": (25.6, dict(A1=41.0, A2=39.9, A3=38.2, A4=37.0)),
    "CRNN": (10.5, dict(A2=42.9, A4=40.6)),
}


ATDR_CLIPS = 20_123


# Table 3: stride -> number of patches as printed, and mAP in %.
ATDR_PATCHES = {
    LARGE: {4: 8192, 6: 3570, 8: 2048, 10: 1212, 12: 756, 16: 512},
    SMALL: {4: 1485, 6: 390, 8: 343, 10: 195, 12: 128, 16: 72},
}


ATDR_STRIDES = {
    "A1": {10: 43.0, 12: 42.9, 16: 42.1},
    "A3": {4: 41.4, 6: 40.8, 8: 41.0, 10: 37.0, 12: 32.0, 16: 24.0},
}


# Table 4, procedure A4: mAP points lost without the component, and their deviation over models.
ATDR_ABLATIONS = {
    "balancing": ("balanced sampler", (3.9, 2.0)),
    "mixup": ("mixup", (1.5, 0.8)),
    "specaug": ("SpecAugment", (1.5, 0.3)),
    "normalise": ("normalisation", (16.5, 9.0)),
}


ATDR_LARGE_WINS = (2.0, 0.1)  # mAP points, in the subset with the best label quality


# --- Effective pre-training of audio transformers for sound event detection

SED_MODELS = ("ATST-F", "BEATs", "fPaSST", "M2D", "ASiT")
# Table I: PSDS1 in % on AudioSet Strong, by SED_MODELS; mean over 3 seeds.
SED_TABLE1 = {
    "full": (45.8, 46.5, 45.4, 46.3, 46.2),
    "no_kd": (41.8, 44.1, 40.7, 41.1, 40.9),
    "no_rnn": (45.7, 45.8, 45.3, 46.0, 46.1),
    "no_step2": (45.7, 46.3, 45.2, 44.9, 46.2),
}
SED_BEFORE = (40.9, 36.5, 38.7, 36.9, 37.0)  # Li et al., in the same table
SED_TEACHERS = (43.3, 45.8, 43.3, 44.1, 43.3)  # single teachers with an RNN
SED_ENSEMBLES = {"full": 47.1, "no_rnn": 46.2, "no_step2": 46.5}  # of 15 teachers
SED_CLASSES = 407


def sed_value(row: str, model: str) -> float | None:
    """The paper's PSDS1 in % of a row of Table I, or of "teacher"."""
    values = {**SED_TABLE1, "teacher": SED_TEACHERS}.get(row)
    return values[SED_MODELS.index(model)] if values and model in SED_MODELS else None
