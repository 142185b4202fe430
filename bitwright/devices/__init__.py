"""Device profiles: memory, latency and power."""

from bitwright.devices.device import Device, read_device, read_devices
from bitwright.devices.energy import PackageEnergy, package_energy
from bitwright.devices.latency import POWER_UNKNOWN, Latency, PowerUnknown
from bitwright.devices.latency_fit import Timed, fit_latency
from bitwright.devices.processors import FREE, n_threads, parse_threads, processors, thread_words

__all__ = [
    "FREE",
    "POWER_UNKNOWN",
    "Device",
    "Latency",
    "PackageEnergy",
    "PowerUnknown",
    "Timed",
    "fit_latency",
    "n_threads",
    "package_energy",
    "parse_threads",
    "processors",
    "read_device",
    "read_devices",
    "thread_words",
]
