"""Questions to people, by use case: routing, deciding, claiming, editing, asking back, standing in, break-glass."""
