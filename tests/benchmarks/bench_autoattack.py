"""AutoAttack of advfeat beside those of PyTorch, on the same weights, points and cores.

    pip install -e ".[peers]"
    python tests/benchmarks/bench_autoattack.py --checkpoint=RUN --dataset=mnist \
        --norm=linf --eps=0.1 --num_examples=1000 --suites=quick,standard --peers=torchattacks \
        [--authors=CLONE_OF_fra31/auto-attack]

Prints one JSON object per line: robust accuracy, wall and processor time with everything in it
(compilation too, loading of code apart), and how many points' verdicts differ from the first
one's. Not a test: nothing is asserted.
"""

import argparse
import contextlib
import io
import json
import sys
import time
from functools import partial

import jax
import numpy as np
import torch
from torch_mirror import Mirror, from_torch, to_torch

import advfeat
from advfeat import data
from advfeat.runs.checkpoints import load_network
from advfeat.runs.kinds import parse_eps

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def ours(network, threat, x, y, batch_size, seed, suite="standard"):
    """Ours: robust flags, adversarial images, extra facts."""
    found = advfeat.evaluate(
        jax.random.key(seed),
        network.model_fn(),
        x,
        y,
        threat=threat,
        suite=suite,
        batch_size=batch_size,
        checks=False,
    )
    parts = {
        part.name: {
            "robust": float(part.robust.mean()),
            "seconds": round(part.seconds, 1),
            "forward": part.forward_passes,
            "backward": part.gradients,
            "tried": int(part.tried.sum()),
        }
        for part in found.attacks
    }
    return found.robust, found.adversarial, {"attacks": parts}


def torchattacks_(network, threat, x, y, batch_size, seed, steps=None):
    """torchattacks' AutoAttack; its own default is 10 steps where the standard suite has 100."""
    import torchattacks

    torch.manual_seed(seed)
    model = Mirror(network).eval()
    where = {"norm": NORMS[threat.norm.name], "eps": float(threat.eps), "seed": seed}
    classes = len(network.spec.class_names)
    attack = torchattacks.AutoAttack(model, version="standard", n_classes=classes, **where)
    if steps is not None:
        attack = torchattacks.MultiAttack(
            [
                torchattacks.APGD(model, steps=steps, loss="ce", n_restarts=1, **where),
                torchattacks.APGDT(model, steps=steps, n_classes=classes, n_restarts=1, **where),
                torchattacks.FAB(
                    model,
                    steps=steps,
                    multi_targeted=True,
                    n_classes=classes,
                    n_restarts=1,
                    **where,
                ),
                torchattacks.Square(model, n_queries=5000, n_restarts=1, **where),
            ]
        )
    found = [
        from_torch(attack(to_torch(x[i : i + batch_size]), torch.from_numpy(y[i : i + batch_size])))
        for i in range(0, len(x), batch_size)
    ]
    return None, np.concatenate(found), {}


def authors(path):
    """The AutoAttack authors' code, from a clone of their repository."""

    def run(network, threat, x, y, batch_size, seed):
        sys.path.insert(0, path)
        from autoattack import AutoAttack

        attack = AutoAttack(
            Mirror(network).eval(),
            norm=NORMS[threat.norm.name],
            eps=float(threat.eps),
            version="standard",
            device="cpu",
            seed=seed,
        )
        log = io.StringIO()
        with contextlib.redirect_stdout(log):
            found = attack.run_standard_evaluation(to_torch(x), torch.from_numpy(y), bs=batch_size)
        lines = [line for line in log.getvalue().splitlines() if "robust accuracy" in line]
        return None, from_torch(found), {"log": lines}

    return run


def main():
    """Reads the command line and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--classes", default=None)
    parser.add_argument("--norm", default="linf", choices=NORMS)
    parser.add_argument("--eps", type=parse_eps, required=True)
    parser.add_argument("--num_examples", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--suites", default="standard,quick")
    parser.add_argument("--peers", default="torchattacks,torchattacks_100")
    parser.add_argument("--authors", default=None)
    args = parser.parse_args()
    network = load_network(args.checkpoint)
    classes = tuple(args.classes.split(",")) if args.classes else None
    test = data.subset(data.load(args.dataset, classes=classes).test, args.num_examples, seed=0)
    x, y = data.unit(test.image), test.label.astype(np.int64)
    threat = advfeat.threat_model(args.norm, args.eps)
    runs = {f"advfeat {suite}": partial(ours, suite=suite) for suite in args.suites.split(",")}
    first = next(iter(runs))
    peers = {"torchattacks": torchattacks_, "torchattacks_100": partial(torchattacks_, steps=100)}
    runs |= {name: run for name, run in peers.items() if name in args.peers.split(",")}
    if args.authors:
        runs["authors"] = authors(args.authors)
    fn, robust = network.model_fn(), {}
    clean = advfeat.correct(fn, x, y)
    for name, run in runs.items():
        begun, processor = time.perf_counter(), time.process_time()
        flags, found, rest = run(network, threat, x, y, args.batch_size, args.seed)
        seconds = time.perf_counter() - begun
        processor = time.process_time() - processor
        if flags is None:
            flags = advfeat.correct(fn, np.clip(found, 0, 1), y) & clean
        robust[name] = flags
        far = jax.vmap(threat.distance)(x, found)
        print(
            json.dumps(
                {
                    "who": name,
                    "points": len(x),
                    "clean": float(clean.mean()),
                    "robust": float(flags.mean()),
                    "seconds": round(seconds, 1),
                    "processor_seconds": round(processor, 1),
                    "farthest": float(far.max()),
                    "differs_from_first": int((flags != robust[first]).sum()),
                    **rest,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
