"""Real models with real data: what a compressed one must still be able to do."""
