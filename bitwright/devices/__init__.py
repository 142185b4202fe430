"""Device profiles: memory, latency and power."""

from bitwright.devices.device import Device, read_device, read_devices
from bitwright.devices.energy import PackageEnergy, package_energy
from bitwright.devices.latency import POWER_UNKNOWN, Latency, PowerUnknown
from bitwright.devices.latency_fit import Timed, fit_latency

__all__ = [
    "POWER_UNKNOWN",
    "Device",
    "Latency",
    "PackageEnergy",
    "PowerUnknown",
    "Timed",
    "fit_latency",
    "package_energy",
    "read_device",
    "read_devices",
]
