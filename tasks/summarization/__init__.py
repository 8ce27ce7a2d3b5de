"""Summarization: news, dialogue and headlines (AG News counts here)."""
