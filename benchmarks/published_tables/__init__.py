"""Published tables of divergences against this project's sizes, solver, predictors of whole models and priors; see `__main__`."""
