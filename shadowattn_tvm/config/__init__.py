"""Configuration: where things live, what a model is, how a chat is laid out."""

from .architecture import Llama3RopeScaling, LlamaConfig
from .atomic import atomic_directory, write_atomically, write_text_atomically
from .chat_config import QUANTIZATIONS, ChatConfig, Quantization, TokenizerInfo
from .conversation import TEMPLATES, Conversation
from .model_sources import ModelSource, known_models, model_source
from .paths import cache_dir, configs_dir

__all__ = [
    "QUANTIZATIONS",
    "TEMPLATES",
    "ChatConfig",
    "Conversation",
    "Llama3RopeScaling",
    "LlamaConfig",
    "ModelSource",
    "Quantization",
    "TokenizerInfo",
    "atomic_directory",
    "cache_dir",
    "configs_dir",
    "known_models",
    "model_source",
    "write_atomically",
    "write_text_atomically",
]
