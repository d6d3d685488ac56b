"""What goals cost: sums folded from the journal beside facts of missions. Pages read these, never the journal."""
