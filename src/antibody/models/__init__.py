"""Finding and loading base models, LoRA adapters, and the run directory they are kept in."""
