// Copy this file to settings.h.
#pragma once

#define WIFI_NAME "ward"
#define WIFI_PASSWORD "..."
#define SERVER_HOST "192.168.1.20"  // what HOST=0.0.0.0 make run prints
#define SERVER_PORT 8000
#define DEVICE_TOKEN "..."
#define PIN_BCLK 26
#define PIN_LRC 25
#define PIN_DIN 22
