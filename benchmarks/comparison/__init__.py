"""Objectives of pre-training side by side: what is run, and what is said of it. The command is `ecg-jepa compare`."""
