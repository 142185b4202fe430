"""Rounding methods: round to nearest, clipping, HQQ and GPTQ, on any grid."""
