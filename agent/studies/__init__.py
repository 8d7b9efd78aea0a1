"""What begins with a finished run or a library: ablation, recipes, tournament, retraining, verification."""
