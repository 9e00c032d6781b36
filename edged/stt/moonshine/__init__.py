"""Moonshine tiny (27 M parameters, MIT): upstream's full-context weights in streaming graphs."""
