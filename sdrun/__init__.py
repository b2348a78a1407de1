"""sdrun: the right stable-diffusion.cpp image for every NVIDIA GPU."""

__version__ = "0.1.0"
