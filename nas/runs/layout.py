"""What the files of a run directory are called.

run.yaml         settings, versions, hardware: everything needed to run it again
trials.jsonl     one complete record a line, appended and fsynced: the source of truth
study.journal    the Optuna study (`optuna-dashboard` opens it), told only what is recorded
latencies.jsonl  latencies of the front and what is near it, measured again in turn, a line each
confirmations.jsonl  members of the front trained again, longer, a line each
baselines.jsonl  reference networks that `nas baseline` measured, a line each; the latest of a name counts
audit.jsonl      further trainings of candidates by `nas fidelity`, a line each
trainings.jsonl  candidates trained in full by `nas train`, a line each
weights/         DIGEST.safetensors of the front and the most recent few
trained/         DIGEST-KEY.safetensors of what `nas train` trained, DIGEST-KEY.hardest.png the images that it found hardest;
                 KEY.checkpoint of what it has not ended yet
report.html      the report
front.png        the front as a picture for slides (`nas report --png`)
state.json       what the driver of a search tells of itself, every few seconds and at its end
stop             there while a search is asked to stop (`nas stop`)
.lock            held by the search or audit that runs on the directory
"""

RUN_FILE = "run.yaml"
TRIALS = "trials.jsonl"
STUDY = "study.journal"
LATENCIES = "latencies.jsonl"
CONFIRMATIONS = "confirmations.jsonl"
BASELINES = "baselines.jsonl"
AUDITS = "audit.jsonl"
TRAININGS = "trainings.jsonl"
WEIGHTS = "weights"
TRAINED = "trained"
REPORT = "report.html"
PICTURE = "front.png"
LOCK = ".lock"
STATE, STOP = "state.json", "stop"
"""Files of the driver that runs, or ran last: no part of what a search leaves."""
READ = (RUN_FILE, TRIALS, LATENCIES, CONFIRMATIONS, BASELINES, AUDITS, TRAININGS, STATE)
"""Files that a run is read from."""
SAFETENSORS, HARDEST, CHECKPOINT = ".safetensors", ".hardest.png", ".checkpoint"
"""How the names of weights end, of pictures of what a network found hardest, and of what a training keeps until it has ended."""
GROWING = (".jsonl", ".journal")
"""How the names of files end that are only ever appended to, a line at a time."""
