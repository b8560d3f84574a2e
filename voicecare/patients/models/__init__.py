"""Patients, their clinics, the devices that play speech to them, and the voices that speak."""

from voicecare.patients.models.clinic import Clinic
from voicecare.patients.models.default_voice import DefaultVoice, DefaultVoices
from voicecare.patients.models.device import TOKEN_PREFIX_LENGTH, Device
from voicecare.patients.models.patient import Patient
from voicecare.patients.models.voice import Voice

__all__ = ["TOKEN_PREFIX_LENGTH", "Clinic", "DefaultVoice", "DefaultVoices", "Device", "Patient", "Voice"]
