"""Coreference: what a pronoun, or a gap in a sentence, stands for."""
