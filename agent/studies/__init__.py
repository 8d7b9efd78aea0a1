"""Studies of finished runs and of the recipe library: ablation, recipes, tournament, retraining, verification."""
