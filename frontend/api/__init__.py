"""`/api/v1` for people, services and agents: serializers and views over the same services as the pages. No rules."""
