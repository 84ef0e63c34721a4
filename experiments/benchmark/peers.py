"""Which peers there are, which works they do, and whether they are installed.

Imports none of them: what needs PyTorch stands in modules that are imported when it is there.
"""

from __future__ import annotations

import importlib.util
import shutil
import textwrap

import jax

from .check import Outcome, same_logits
from .flags import Config
from .plan import Plan, Work
from .timing import Contender

TITLES = {
    "torch": "PyTorch, hand-written",
    "torch_compile": "PyTorch, hand-written, torch.compile",
    "torchattacks": "torchattacks",
    "foolbox": "foolbox on PyTorch",
    "foolbox_jax": "foolbox on JAX",
    "art": "ART on PyTorch",
    "captum": "captum",
    "autoattack": "AutoAttack authors' code",
}
NEEDS = {
    "torch": ("torch",),
    "torch_compile": ("torch",),
    "torchattacks": ("torch", "torchattacks"),
    "foolbox": ("torch", "foolbox"),
    "foolbox_jax": ("foolbox",),
    "art": ("torch", "art"),
    "captum": ("torch", "captum"),
    "autoattack": ("torch",),
}
DOES = {
    "pgd": ("torch", "torch_compile", "torchattacks", "foolbox", "foolbox_jax", "art"),
    "apgd": ("torchattacks", "autoattack"),
    "quick": ("torchattacks", "autoattack"),
    "standard": ("torchattacks", "autoattack"),
    "train": ("torch", "torch_compile"),
    "d_det": ("torch", "torch_compile", "torchattacks"),
    "smoothgrad": ("torch", "captum"),
    "startup": ("torch",),
}
"""Of each family of works, its peers. `quick`, which only we have, is compared with their standard
AutoAttack: what counts is that the robust accuracies agree."""


def missing(config: Config) -> dict[str, str]:
    """Returns the peers that cannot take part, each with the reason."""
    if not config.peers:
        return dict.fromkeys(TITLES, "not asked for (--peers)")
    found = {}
    for name, modules in NEEDS.items():
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        if absent:
            found[name] = "not installed"
        elif name == "torch_compile" and not _compiler():
            found[name] = "no C++ compiler on this machine"
        elif name == "autoattack" and config.autoattack is None:
            found[name] = "no clone given (--autoattack)"
        elif name != "foolbox_jax" and jax.default_backend() != "cpu" and not _torch_device():
            found[name] = "PyTorch sees no accelerator of this machine"
    return found


def _compiler() -> bool:
    return jax.default_backend() != "cpu" or any(map(shutil.which, ("c++", "g++", "clang++")))


def _torch_device() -> bool:
    from .torch_peers import device

    return device() != "cpu"


def contenders(
    work: Work, plan: Plan, config: Config, threads: int
) -> tuple[list[Contender], dict[str, str]]:
    """Returns the peers that do a work, and why others that could do not.

    Args:
      work: the work.
      plan: of the run.
      config: the flags.
      threads: of PyTorch.

    Returns:
      Contenders, and peer to reason.
    """
    absent = missing(config)
    left_out = {name: absent[name] for name in DOES[work.family] if name in absent}
    found: list[Contender] = []
    there = [name for name in DOES[work.family] if name not in absent]
    bench = None
    for name in there:
        try:
            if name == "foolbox_jax":
                found.append(_foolbox_jax(work, plan))
                continue
            if bench is None:
                from .torch_peers import Bench

                bench = Bench(work, plan, config, threads)
                # Of what a library makes of another network no time is taken.
                wrong = same_logits(*bench.logits(), config.precision)
                if wrong:
                    return [], left_out | dict.fromkeys(there, wrong)
            found.append(bench.contender(name))
        except Exception as error:  # of other people's code
            left_out[name] = failed(error)
    return found, left_out


def failed(error: Exception) -> str:
    """Returns an error of a peer in a line.

    >>> failed(ValueError("no such\\n thing"))
    'failed: ValueError: no such thing'
    """
    words = textwrap.shorten(str(error), 300, placeholder=" …")
    return f"failed: {type(error).__name__}: {words}"


def _foolbox_jax(work: Work, plan: Plan) -> Contender:
    import foolbox
    import jax.numpy as jnp
    import numpy as np

    from .ours import step_size

    fn = plan.networks[work.network].model_fn()
    images, labels = plan.points(work.count)
    threat = plan.threats[work.norm]
    model = foolbox.JAXModel(jax.jit(jax.vmap(fn)), bounds=(0, 1), data_format="channels_last")
    kinds = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}
    attack = kinds[work.norm](
        abs_stepsize=step_size(work, threat), steps=work.steps, random_start=False
    )
    x, y = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    wanted, eps = foolbox.criteria.Misclassification(y), float(threat.eps)
    return Contender(
        "foolbox_jax",
        lambda: jax.block_until_ready(attack.run(model, x, wanted, epsilon=eps)),
        lambda found: Outcome(points=np.asarray(found)),
    )
