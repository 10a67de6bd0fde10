"""The trainers, and the two functions that run them: `align` and `finetune`."""
