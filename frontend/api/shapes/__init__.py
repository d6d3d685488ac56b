"""What each resource looks like as JSON, going in and coming out."""
