"""Forward and backward passes counted while they run, beside what an attack says of them."""

import jax


def made_and_said(attack, key, head, x, y=0):
    """The passes of a compiled attack on ONE example: (forward, backward), seen and reported.

    Args:
      attack: the attack.
      key: its key.
      head: example -> logits.
      x: the example.
      y: its label.
    """
    seen = {"forward": 0, "backward": 0}

    def count(kind, x):
        def one(_):
            seen[kind] += 1

        jax.debug.callback(one, x.ravel()[0])  # once per row, where a `vmap` goes over it

    @jax.custom_vjp
    def tap(x):
        count("forward", x)
        return x

    def tap_forward(x):
        count("forward", x)
        return x, None

    def tap_backward(_, g):
        count("backward", g)
        return (g,)

    tap.defvjp(tap_forward, tap_backward)
    model = jax.tree_util.Partial(lambda x: head(tap(x)))
    result = jax.jit(attack)(key, model, x, y)
    jax.block_until_ready(result)
    jax.effects_barrier()
    made = (seen["forward"], seen["backward"])
    return made, (int(result.queries), int(result.gradients))
