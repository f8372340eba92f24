"""The process set of one machine: `up` starts web, workers and supervisor from one preloaded parent and keeps them running.

The parent imports all that the parts need and then forks them, so that they share most of their memory. It therefore never opens a database
connection, a thread or a reactor: whatever needs one is done in a short-lived child (`forks.in_child`).
"""
