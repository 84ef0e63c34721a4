"""Broken defences: what FGSM says of each, what a suite of attacks says, and what the checks say.

    python -m experiments.defences --workdir=runs/defences

One small network, eighteen ways to make it look robust, and an adversarially trained one beside
them. A defence is caught if the suite leaves, decidably, less than five points more of it than of
the undefended network, or if the checks of `advfeat.evaluation.diagnostics` say not to trust the
number.
"""
