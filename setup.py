"""Maps the folders at the top of the repository to sub-packages of ``trimton``."""

from setuptools import find_packages, setup

FOLDERS = ("core", "plugin", "transforms", "perf")

found = find_packages(include=[pattern for f in FOLDERS for pattern in (f, f"{f}.*")])
setup(
    packages=[f"trimton.{name}" for name in found],
    package_dir={f"trimton.{folder}": folder for folder in FOLDERS},
    package_data={
        **{f"trimton.{folder}": ["py.typed"] for folder in FOLDERS},
        "trimton.plugin": ["py.typed", "recipe.schema.json", "policy.schema.json"],
        "trimton.plugin.agent": ["*.c", "*.h"],
        "trimton.plugin.backends": ["onnxruntime/model.py"],
        "trimton.plugin.hooks": ["*/*.yaml", "*/*.yml"],
        "trimton.plugin.server": ["*.txt"],
        "trimton.perf.report": ["*.html.j2", "*.md.j2", "*.css", "*.js"],
    },
)
