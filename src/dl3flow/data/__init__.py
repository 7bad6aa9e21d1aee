"""The nouns: frozen dataclasses without files or computation."""
