"""Strictness for every test: rank promotion raises, so a missing axis cannot pass unseen."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
