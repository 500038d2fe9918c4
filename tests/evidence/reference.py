"""Evidence in its slow, obvious form: a loop over all rows for each pair."""

from math import log, log1p

from optirag_core.evidence.smoothing import PRIOR_WEIGHT


def visible(rows, pair, timed):
    """The rows that count for a pair."""
    kept = []
    for row in rows:
        mine = row["user_id"] == pair["user_id"]
        if row["split"] == "test" or (mine and row["item_id"] == pair["item_id"]):
            continue
        if timed and pair["as_of"] is not None and row["event_time"] >= pair["as_of"]:
            continue
        hidden_from = pair["as_of_position"]
        if not timed and mine and hidden_from is not None and row["position"] >= hidden_from:
            continue
        kept.append(row)
    return kept


def slow_features(rows, values, pair, timed):
    """
    Args:
        values: for each attribute item_id -> its values.
    """
    seen = visible(rows, pair, timed)
    prior = (sum(row["label"] for row in seen) + 1) / (len(seen) + 2)
    mean = sum(row["rating"] for row in seen) / max(len(seen), 1)
    mine = [row for row in seen if row["user_id"] == pair["user_id"]]
    keys = [mine, [row for row in seen if row["item_id"] == pair["item_id"]]]
    for of in values:
        asked = of.get(pair["item_id"], [])
        for among in (seen, mine):
            keys.append([row for value in asked for row in among if value in of.get(row["item_id"], [])])
    features = []
    for key in keys:
        share = (sum(row["label"] for row in key) + PRIOR_WEIGHT * prior) / (len(key) + PRIOR_WEIGHT)
        residual = sum(row["rating"] - mean for row in key) / (len(key) + PRIOR_WEIGHT)
        features += [log(share / (1 - share)), residual, log1p(len(key))]
    return features
