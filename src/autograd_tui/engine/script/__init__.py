"""A script of the user's own, unmodified: seams in its process, an agent that holds it, and the session that leads."""
