"""Configuration: where things live, what a model is, how a chat is laid out."""

from .architecture import Llama3RopeScaling, LlamaConfig
from .atomic import atomic_directory, write_atomically, write_text_atomically
from .paths import cache_dir, configs_dir

__all__ = [
    "Llama3RopeScaling",
    "LlamaConfig",
    "atomic_directory",
    "cache_dir",
    "configs_dir",
    "write_atomically",
    "write_text_atomically",
]
