"""Procedural worlds with exact truth: scenes, ray caster, camera paths, tracks and simulated predictions."""
