"""Jobs: their state machine, who works on them, and the process that trains.

A job's *status* is what its user asked for and sees. Its *lease* is who works on it. They are apart: a job that was
cancelled a moment ago has the status `cancelled` and is still leased by a worker that is saving its last checkpoint.
"""
