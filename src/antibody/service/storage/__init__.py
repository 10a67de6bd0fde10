"""What is kept: a database, and blobs beside it. Every query that a client can cause names the client's project."""
