"""An emulated 64-bit ARM machine: QEMU runs TVM's own aarch64 wheel as an RPC server."""

from .background import ArmStatus, arm_status, start_arm, stop_arm
from .counts import InstructionCounts
from .emulator import ArmEmulator, ArmSettings
from .image import image_path, make_image
from .tools import EMULATOR, require_emulator

__all__ = [
    "EMULATOR",
    "ArmEmulator",
    "ArmSettings",
    "ArmStatus",
    "InstructionCounts",
    "arm_status",
    "image_path",
    "make_image",
    "require_emulator",
    "start_arm",
    "stop_arm",
]
