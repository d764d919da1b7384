"""Where the time of a pre-training step goes: variants of a configuration in turn. The command is `ecg-jepa benchmark`."""
