"""Requests that may be repeated: the same key and body get the same answer, and nothing is done twice."""
