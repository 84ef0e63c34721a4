"""Estimates and claims read back from a summary, as the code had them when it wrote it."""

from advfeat.stats import Claim, Estimate

ESTIMATE = {"mean", "low", "high", "n", "seeds", "unit"}
CLAIM = {"claim", "effect", "control", "difference", "margin", "p", "verdict"}


def revived(value):
    if isinstance(value, list):
        return [revived(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: revived(item) for name, item in value.items()}
    if set(found) == ESTIMATE:
        return Estimate(**found)
    return Claim(**found) if set(found) == CLAIM else found


def assert_claims(claims, *, dry_run=True):
    """Every claim says all that is to be said of it; a dry run's are not judged."""
    for claim in claims:
        assert set(claim) == CLAIM
        for part in ("effect", "control", "difference"):
            assert set(claim[part]) == ESTIMATE
        assert (claim["verdict"] is None) == dry_run
        if claim["effect"]["unit"] == "rate":
            assert claim["margin"] is not None
            assert claim["difference"]["unit"] == "points"
