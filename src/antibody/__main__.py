"""``python -m antibody``, and so ``accelerate launch -m antibody``."""

from antibody.cli import main

if __name__ == "__main__":
    main()
