"""What users are told of stores, lvols and jobs, whoever asks: dicts, numbers, text."""
