"""``cachepod config``."""
