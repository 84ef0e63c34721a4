"""Evaluates broken defences: accuracy under FGSM and under a suite of attacks, and the checks.

    python -m experiments.defences --workdir=runs/defences --norm=linf

Wraps one small network in eighteen defences that only look robust, and compares them with an
adversarially trained network. A defence is caught if its accuracy under the suite is, decidably,
less than five points above that of the undefended network, or if the checks of
`advfeat.evaluation.diagnostics` call the number untrustworthy.
"""
