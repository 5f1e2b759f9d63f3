"""Load, measure, compare served models. Knows nothing of how a variant was made."""
