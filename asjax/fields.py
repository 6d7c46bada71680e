"""The fields of a config: their defaults and ranges, and which of them describe a part."""

from __future__ import annotations

import inspect

METRICS = (  # for eval.metric
    "mean_ap", "mean_auc", "d_prime", "accuracy", "psds1", "onset_f1", "weak_strong_f1",
)  # fmt: skip

REQUIRED = inspect.Parameter.empty
# Every field of a config with its default. The keywords of the things it builds are not here.
FIELDS = {
    "seed": 0,
    "total_steps": 0,  # give this or total_epochs
    "total_epochs": 0.0,  # in place of total_steps; one epoch is as many draws as the draw says
    "batch_size": REQUIRED,  # rows of the global batch, over all processes
    "labels": {
        "name": "audioset527",  # a label set, or "own": the labels of the training data
        "hlp": False,  # propagate labels up the ontology
        "strict": False,  # False contracts abstract classes, True follows direct links only
        "parents": "",  # a CSV child,parent: your own ontology for these classes
    },
    "data": {
        "train": REQUIRED,  # a source
        "eval": REQUIRED,  # a source; the step is chosen by its scores
        "test": None,  # a source for the final scores; without it they are those of eval
        "sample_rate": REQUIRED,  # Hz
        "clip_s": REQUIRED,  # length of the model's input in seconds
        "draw": "shuffle",  # the order in which training clips are drawn
        "ops": "decode | crop | multihot",  # steps from a clip to an example
        "workers": 0,  # additional processes that decode
        "threads": 2,  # decoding threads in each process
        "cache": True,  # keep decoded clips in memory: 1 GiB for the program with all its workers
        "resident": False,  # decode the training clips once, and keep them on the devices as int16
        "max_bad": 0.05,  # largest share of clips that may be undecodable
        "decode_timeout_s": 60.0,  # a clip that takes longer to read counts as undecodable
    },
    "frontend": REQUIRED,
    "augment": {"wave": "", "feats": "", "normed": ""},
    "model": REQUIRED,
    "objective": {"name": "tagging"},
    "optim": REQUIRED,
    "average": None,  # an average of the weights
    "eval": {
        "every_steps": 500,
        "every_epochs": 0.0,  # if above 0: in place of every_steps
        # one of METRICS, perhaps a call; "": that of the objective (mean_ap, accuracy, psds1)
        "metric": "",
        "select": "best",  # best | last | smooth(window=7): which evaluated step is the result
        "patience": 0,  # end after so many evaluations without a better metric; 0: never
        "max_share": 0.1,  # evaluations are left out if they take a larger share of the time
        "batch_size": 16,
        "bootstrap": 1000,  # resamples for the intervals
        "median_s": 0.36,  # window of the median filter over frame scores of a detector
        "only_with_events": False,  # metrics of events leave out annotated clips without events
        "mappings": [],  # other label sets to report the scores in
        "baseline": False,  # also score a linear model on log-mel statistics, for the report
    },
    "log": {"every_steps": 10, "save_steps": 1000},
    "mesh": "",  # e.g. "data=2,fsdp=4"; empty: all devices on "data"
    "init_from": "",  # weights to start from
}
AT_LEAST = {  # fields that are whole numbers, with the smallest allowed value
    "total_steps": 0,
    "batch_size": 1,
    "optim.accumulate_steps": 1,
    "eval.every_steps": 1,
    "eval.batch_size": 1,
    "eval.bootstrap": 0,
    "eval.patience": 0,
    "log.every_steps": 1,
    "log.save_steps": 1,
}
SPECS = {  # field -> kind of the thing it describes
    "data.train": "source",
    "data.eval": "source",
    "data.test": "source",
    "data.draw": "draw",
    "data.ops": "op",
    "frontend": "frontend",
    "augment.wave": "augment",
    "augment.feats": "augment",
    "augment.normed": "augment",
    "model": "model",
    "objective": "objective",
    "optim": "optim",
    "average": "average",
    "eval.select": "choice",
}
READ = {  # kind -> fields of its spec that the program reads itself, with their defaults
    "optim": {
        "accumulate_steps": 1,  # parts of a batch, computed one after the other to save memory
        "freeze": "none",  # arrays that stay as they are: none, all (but the head), head
        "layer_decay": 1.0,  # the learning rate's factor per block, from the head downwards
        "layer_rule": "beit",  # the factors of other arrays: beit, pretrained_sed
    },
}
OFFERED = {  # kind -> keywords that come from the program, never from a config
    "model": ("num_classes",),
    "objective": ("model", "frontend", "augment", "closure", "source", "load"),
    "optim": ("total_steps", "steps_per_epoch"),
    "source": ("label_set", "load"),
    "draw": ("labels", "seed", "source"),
    "op": (
        "example",
        "rng",
        "sample_rate",
        "clip_s",
        "num_classes",
        "train",
        "pcm16",
        "decode_timeout_s",
        "stored_logits",
    ),
    "augment": ("rng", "batch"),
}
