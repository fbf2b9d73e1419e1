"""The image for containers: its Dockerfile, read; and built and run without a container engine.

`dockerfile` reads the instructions. `roots` does what they say in clean roots of Debian, made by
mmdebstrap, with chroot and namespaces of Linux; it takes minutes, root, and a mirror of Debian and
of PyPI. `pytest -m container -s` runs that.
"""
