"""The HTTP side: who may ask what, and how it is answered. Holds no torch."""
