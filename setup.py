"""Only what setup.cfg cannot say: the wheel holds the folder configs/ as asjax/_configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["asjax", "asjax.*"]), "asjax._configs"],
    package_dir={"asjax._configs": "configs"},
)
