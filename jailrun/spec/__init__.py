"""The OCI runtime specification's config as data: its types, checks, defaults, and compilation.

A config is the parsed JSON itself, a plain dict; `jailrun.spec.model` names its types.  Lean but
for the model, which lean modules import for type checking only.
"""
