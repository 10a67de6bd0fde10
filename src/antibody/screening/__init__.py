"""What an aligned model thinks of rows before anything is trained, and how sure that is."""
