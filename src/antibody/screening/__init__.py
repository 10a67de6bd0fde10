"""What an aligned model makes of rows before anything is trained, and how sure that is."""
